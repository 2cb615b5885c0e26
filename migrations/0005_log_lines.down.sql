drop trigger ops_job_log_number on ops_job_log;
drop function ops_number_log();
alter table ops_job_log drop constraint ops_job_log_seq_once;
alter table ops_job_log drop column first_seq;
comment on column ops_job_log.at is 'When it was stored.';
comment on column ops_job_log.body is 'The lines, each ended by a newline.';
