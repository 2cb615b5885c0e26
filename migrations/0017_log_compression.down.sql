-- Rows that were compressed with lz4 stay readable.
alter table ops_job_log alter column body set compression default;
