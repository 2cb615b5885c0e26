set local statement_timeout = '15min';

drop index ops_jobs_running;

create index ops_jobs_running on ops_jobs (id) where status = 'running';
comment on index ops_jobs_running is 'Sweeps of expired leases, and the list of what runs.';
