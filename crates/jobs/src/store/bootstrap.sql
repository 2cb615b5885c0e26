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
      'ops_job_stages, ops_gates, ops_gate_approvals, ops_gate_rules, ops_open_gates, '
      'ops_slots, ops_sweeps, ops_seals, ops_files, ops_file_garbage, ops_artifacts, ops_schema_migrations, '
      'ops_queue_depth, ops_stalled_jobs, ops_dead_letters to %I', role
    );
  end loop;
end
$$;

revoke execute on function
  ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text, jsonb),
  ops_abort(uuid, text),
  ops_retry(uuid, text, boolean),
  ops_approve(uuid, text, text, jsonb),
  ops_reject(uuid, text, text, jsonb),
  ops_decide(uuid, text, text, text, int, text, jsonb, jsonb),
  ops_sweep_gates(text),
  ops_stage_at_work(uuid, int),
  ops_resume(uuid, text),
  ops_note_sweep(text),
  ops_seal(text),
  ops_settle_gate(uuid, int, int),
  ops_open_gate(ops_jobs, ops_job_stages),
  ops_record_stages(uuid, text, jsonb, int, int)
from public;

grant execute on function
  ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text, jsonb),
  ops_abort(uuid, text),
  ops_retry(uuid, text, boolean),
  ops_approve(uuid, text, text, jsonb),
  ops_reject(uuid, text, text, jsonb),
  ops_decide(uuid, text, text, text, int, text, jsonb, jsonb),
  ops_sweep_gates(text),
  ops_stage_at_work(uuid, int),
  ops_resume(uuid, text),
  ops_note_sweep(text),
  ops_seal(text)
to ops_control_plane, ops_runner;

-- The control plane records jobs, lets a runner's refusal fail one, takes lost ones back at a tick, and notes its triggers;
-- everything else goes through the functions.
grant insert on ops_jobs, ops_job_events to ops_control_plane;
grant update (status, error, lost_count, run_at, dead_lettered_at, last_trigger_at, last_trigger_outcome)
  on ops_jobs to ops_control_plane;
grant usage on sequence ops_fence to ops_control_plane;
-- It takes uploads in, and gives up those that come to nothing.
grant insert, update (job_id, place, size, sha256, crc32), delete on ops_files to ops_control_plane;
grant select, insert on ops_file_chunks to ops_control_plane;

-- A runner moves jobs under its lease, writes their log, and keeps its own row; history it can only append to.
grant insert, update on ops_jobs to ops_runner;
grant insert on ops_job_events, ops_job_log to ops_runner;
grant insert, update, delete on ops_runners to ops_runner;
-- Slots are made and locked by claims; who holds them is kept by the database.
grant insert, update (slot_no) on ops_slots to ops_runner;
grant insert, update on ops_metrics to ops_runner;
grant usage on sequence ops_fence to ops_runner;
-- It takes what attempts leave, and clears away what was broken off.
grant insert, update (job_id, place, size, sha256, crc32), delete on ops_files to ops_runner;
grant select, insert on ops_file_chunks to ops_runner;
grant delete on ops_file_garbage to ops_runner;

-- Schedules: the control plane makes and changes them; both fire what is due, and write and thin out the ledger.
grant select on ops_schedules, ops_schedule_fires, ops_next_fires to ops_control_plane, ops_runner, ops_readonly;
revoke execute on function
  ops_pause_schedule(text, text), ops_resume_schedule(text), ops_fire_schedule(text, text)
from public;
grant execute on function
  ops_pause_schedule(text, text), ops_resume_schedule(text), ops_fire_schedule(text, text)
to ops_control_plane, ops_runner;
grant insert, update, delete on ops_schedules to ops_control_plane;
grant update (next_fire_at, due_at, waiting_instant, open_jobs, fault) on ops_schedules to ops_runner;
grant insert, delete on ops_schedule_fires to ops_control_plane, ops_runner;

-- The fleet: everybody reads whether it is paused, as each claim does; it is changed through the functions.
grant select on ops_fleet, ops_fleet_changes to ops_control_plane, ops_runner, ops_readonly;
revoke execute on function ops_pause_fleet(text), ops_resume_fleet(text) from public;
grant execute on function ops_pause_fleet(text), ops_resume_fleet(text) to ops_control_plane;

-- Counts: both have them kept and added up through the functions, and everybody reads them.
grant select on ops_counting, ops_count_deltas, ops_count_hours, ops_count_totals, ops_count_depths,
  ops_job_counts, ops_job_totals, ops_job_depths to ops_control_plane, ops_runner, ops_readonly;
revoke execute on function
  ops_count_jobs(), ops_fold_counts(int), ops_stop_counting(), ops_note_tick(text), ops_last_backup()
from public;
grant execute on function ops_count_jobs(), ops_fold_counts(int), ops_note_tick(text), ops_last_backup()
to ops_control_plane, ops_runner;
-- Webhooks: everybody sees how they fare; the control plane makes and changes endpoints, both send through the functions.
grant select on ops_webhooks, ops_webhook_deliveries, ops_webhook_attempts, ops_webhook_health
to ops_control_plane, ops_runner;
grant select on ops_webhook_health to ops_readonly;
grant insert, update, delete on ops_webhooks to ops_control_plane;
revoke execute on function
  ops_claim_webhooks(text, text[], int),
  ops_record_webhook(text, uuid, int, int, text, int, int, boolean),
  ops_keep_webhooks(int), ops_resend_webhook(uuid), ops_resend_dead_webhooks(text, timestamptz), ops_ping_webhook(text),
  ops_enable_webhook(text), ops_disable_webhook(text, text), ops_rotate_webhook(text, interval)
from public;
grant execute on function
  ops_claim_webhooks(text, text[], int),
  ops_record_webhook(text, uuid, int, int, text, int, int, boolean),
  ops_keep_webhooks(int)
to ops_control_plane, ops_runner;
grant execute on function
  ops_resend_webhook(uuid), ops_resend_dead_webhooks(text, timestamptz), ops_ping_webhook(text),
  ops_enable_webhook(text), ops_disable_webhook(text, text), ops_rotate_webhook(text, interval)
to ops_control_plane;
-- Notion: everybody sees how publishing fares; both publish through the functions, and the control plane has it done again.
grant select on ops_notion, ops_notion_keys, ops_notion_pages, ops_notion_health to ops_control_plane, ops_runner;
grant select on ops_notion_health to ops_readonly;
revoke execute on function
  ops_claim_notion(text, text, text), ops_reserve_notion(), ops_delay_notion(text, int),
  ops_check_notion(text, text, text, int),
  ops_record_notion(text, uuid, int, int, text, int, text, text, text, int), ops_retry_notion(uuid)
from public;
grant execute on function
  ops_claim_notion(text, text, text), ops_reserve_notion(), ops_check_notion(text, text, text, int),
  ops_record_notion(text, uuid, int, int, text, int, text, text, text, int)
to ops_control_plane, ops_runner;
grant execute on function ops_retry_notion(uuid) to ops_control_plane;
-- Retention: housekeeping removes what its owner's table says, through the function; nobody else takes a job or an event away.
grant select on ops_retention, ops_removals, ops_backups, ops_drills to ops_control_plane, ops_runner, ops_readonly;
revoke execute on function ops_apply_retention(text, int), ops_after_restore(text) from public;
grant execute on function ops_apply_retention(text, int) to ops_control_plane, ops_runner;
-- Keys: the control plane looks them up by their digest, keeps new ones, revokes them and notes their use; a runner has
-- nothing to do with them, and whoever only looks sees all but the digests.
revoke all on ops_api_keys from ops_control_plane, ops_runner, ops_readonly;
grant select, insert (name, digest, scope, expires_at), update (revoked_at, revoked_by, last_used_at) on ops_api_keys
  to ops_control_plane;
grant select (id, name, scope, created_at, created_by, expires_at, revoked_at, revoked_by, last_used_at) on ops_api_keys
  to ops_readonly;

-- Runners: drained, undrained and forgotten through the functions only.
revoke execute on function
  ops_drain_runner(text, text), ops_undrain_runner(text, text), ops_forget_runner(text, text)
from public;
grant execute on function
  ops_drain_runner(text, text), ops_undrain_runner(text, text), ops_forget_runner(text, text)
to ops_control_plane;
