DROP TABLE report_chunk;
DROP TABLE report_job;
