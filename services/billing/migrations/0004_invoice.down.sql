DROP TABLE invoice_line;
DROP TABLE invoice;
DROP FUNCTION invoice_line_keeps_its_rules();
DROP FUNCTION invoice_keeps_its_rules();
