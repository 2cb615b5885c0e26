drop function ops_after_restore(text);
drop table ops_drills, ops_backups;
drop function ops_apply_retention(text, int);
delete from ops_sweeps where name = 'retention';
comment on column ops_sweeps.name is 'sweep: lost and outlived jobs are taken back. seal: the histories of ended jobs are sealed.';

drop trigger ops_seals_leave on ops_seals;
drop trigger ops_seals_append_only on ops_seals;
create trigger ops_seals_append_only before update or delete on ops_seals
for each row execute function ops_refuse_change();
drop trigger ops_job_events_leave on ops_job_events;
drop trigger ops_job_events_append_only on ops_job_events;
create trigger ops_job_events_append_only before update or delete on ops_job_events
for each row execute function ops_refuse_change();
drop trigger ops_jobs_no_delete on ops_jobs;
create trigger ops_jobs_no_delete before delete on ops_jobs
for each row execute function ops_refuse_change();
drop function ops_guard_removed();
drop function ops_guard_removal();

create or replace function ops_guard_fleet() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  why text := coalesce(nullif(current_setting('ops.reason', true), ''), case when new.paused_at is not null then new.reason end);
begin
  -- Whoever changes it, by a function or by hand: who and when come from the database, and it is on record.
  if (new.paused_at is null) = (old.paused_at is null) then
    new.paused_at := old.paused_at;
    new.paused_by := old.paused_by;
    new.reason := old.reason;
    return new;
  end if;
  if new.paused_at is not null then
    new.paused_at := clock_timestamp();
    new.paused_by := ops_actor();
    new.reason := why;
  else
    new.paused_by := null;
    new.reason := null;
  end if;
  insert into ops_fleet_changes (at, change, actor, reason)
  values (clock_timestamp(), case when new.paused_at is null then 'resumed' else 'paused' end, ops_actor(), why);
  return new;
end
$$;
comment on function ops_guard_fleet() is 'Notes who paused or resumed the fleet, when and why, however it was done. A paused fleet stays as it was paused.';

alter table ops_fleet drop column restored_at;
drop table ops_removals;
drop function ops_retention_due();
drop function ops_retention_horizon(interval);
drop function ops_retention_terms();
drop function ops_kept_for(text, text);
drop index ops_jobs_ended;
drop table ops_retention;
drop function ops_guard_retention();
