-- Roles with least privilege. Run by the owner of the tables, in the database that holds them; safe to run again.
do $$
declare
  role text;
begin
  foreach role in array array['ops_control_plane', 'ops_runner', 'ops_readonly'] loop
    if not exists (select from pg_roles where rolname = role) then
      execute format('create role %I nologin', role);
    end if;
    -- Begin from nothing, so that what an older version granted does not linger.
    execute format('revoke all on all tables in schema public from %I', role);
    execute format('revoke all on all functions in schema public from %I', role);
    execute format('revoke all on all sequences in schema public from %I', role);
    execute format('grant usage on schema public to %I', role);
    execute format(
      'grant select on ops_jobs, ops_job_events, ops_job_transitions, ops_runners, ops_job_log, ops_metrics, '
      'ops_slots, ops_schema_migrations, ops_queue_depth, ops_stalled_jobs, ops_dead_letters to %I', role
    );
  end loop;
end
$$;

revoke execute on function
  ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text),
  ops_abort(uuid, text),
  ops_retry(uuid, text),
  ops_resume(uuid, text)
from public;

grant execute on function
  ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text),
  ops_abort(uuid, text),
  ops_retry(uuid, text),
  ops_resume(uuid, text)
to ops_control_plane, ops_runner;

-- The control plane records jobs, lets a runner's refusal fail one, takes lost ones back at a tick, and notes its triggers;
-- everything else goes through the functions.
grant insert on ops_jobs, ops_job_events to ops_control_plane;
grant update (status, error, lost_count, run_at, dead_lettered_at, last_trigger_at, last_trigger_outcome)
  on ops_jobs to ops_control_plane;
grant usage on sequence ops_fence to ops_control_plane;

-- A runner moves jobs under its lease, writes their log, and keeps its own row; history it can only append to.
grant insert, update on ops_jobs to ops_runner;
grant insert on ops_job_events, ops_job_log to ops_runner;
grant insert, update, delete on ops_runners to ops_runner;
-- Slots are made and locked by claims; who holds them is kept by the database.
grant insert, update (slot_no) on ops_slots to ops_runner;
grant insert, update on ops_metrics to ops_runner;
grant usage on sequence ops_fence to ops_runner;
