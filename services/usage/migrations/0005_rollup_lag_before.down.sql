-- Nothing: the figure stays right, and goes with its table.
SELECT 1;
