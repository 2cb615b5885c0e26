-- Looks through the running jobs may leave out those that began before an instant without reading their rows: what ran before has
-- left entries behind that an old snapshot keeps, and sweeps read the rows of all of them every second, for longer than a second
-- after a million jobs.
--
-- The id stays in front: where few jobs run, the planner reads all of a small index sooner than it looks up an id in a large one,
-- and would do so at each finish. Nothing is written to ops_jobs for as long as the index is built, some seconds for a million jobs;
-- take it while nothing keeps old rows, such as a backup or a long transaction. The release before goes on.

set local statement_timeout = '15min';

alter index ops_jobs_running rename to ops_jobs_running_before;

create index ops_jobs_running on ops_jobs (id, started_at) where status = 'running';
comment on index ops_jobs_running is 'Sweeps of expired leases, and the list of what runs; a renewal changes nothing of it.';

drop index ops_jobs_running_before;
