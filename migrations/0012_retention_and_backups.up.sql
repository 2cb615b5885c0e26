-- Retention: jobs that have ended leave after a while, whole, with all that is theirs. And backups: what was backed up, what
-- a restored copy begins as, what drills came to.
--
-- Only ops_apply_retention removes jobs. A job leaves in one transaction with its events, log, files, stages, gates and seals;
-- what follows from that for tables to come: see migrations/README.md.
-- Takes the lock on ops_jobs for as long as one index is built, some seconds a million jobs. The release before goes on.

set local statement_timeout = '15min';

create table ops_retention (
  job_type text not null default '*',
  status text not null,
  keep interval,
  set_by text not null default ops_actor(),
  set_at timestamptz not null default clock_timestamp(),
  constraint ops_retention_pkey primary key (job_type, status),
  constraint ops_retention_job_type check (job_type = '*' or job_type ~ '^[a-z][a-z0-9_]{0,63}$'),
  constraint ops_retention_status_terminal check (status in ('succeeded', 'failed', 'aborted')),
  constraint ops_retention_keep check (keep between interval '0' and interval '1000 years')
);
comment on table ops_retention is 'How long ended jobs are kept, by type and status. Yours to change: the next housekeeping goes by it.';
comment on column ops_retention.job_type is 'The job type; *: every type without a row of its own for this status.';
comment on column ops_retention.status is 'succeeded, failed or aborted. Jobs that have not ended are never removed.';
comment on column ops_retention.keep is 'Kept for so long after finished_at; null: for ever.';
comment on column ops_retention.set_by is 'Who set it last.';
comment on column ops_retention.set_at is 'When.';
insert into ops_retention (status, keep, set_by) values
  ('succeeded', '30 days', 'default'),
  ('failed', '90 days', 'default'),
  ('aborted', '90 days', 'default');

create function ops_guard_retention() returns trigger
language plpgsql
as $$
begin
  new.set_by := ops_actor();
  new.set_at := clock_timestamp();
  return new;
end
$$;
comment on function ops_guard_retention() is 'Notes who set how long jobs are kept, and when, by a program or by hand.';
create trigger ops_retention_guard before insert or update on ops_retention
for each row execute function ops_guard_retention();

create index ops_jobs_ended on ops_jobs (status, job_type, finished_at) where finished_at is not null;
comment on index ops_jobs_ended is 'Retention: what ended longest ago, by status and type; and which types there are.';

create function ops_kept_for(status text, job_type text) returns interval
language sql stable
as $$
  select r.keep from ops_retention r
  where r.status = ops_kept_for.status and r.job_type in (ops_kept_for.job_type, '*')
  order by r.job_type = '*'
  limit 1
$$;
comment on function ops_kept_for(text, text) is 'How long jobs of this type that ended so are kept; null: for ever.';

create function ops_retention_terms() returns table (status text, job_type text, keep interval)
language sql stable
as $$
  -- From one pair to the next by the index: as many steps as there are pairs, however many jobs.
  with recursive pairs as (
    (
      select j.status, j.job_type from ops_jobs j
      where j.finished_at is not null
      order by j.status, j.job_type
      limit 1
    )
    union all
    select n.status, n.job_type
    from pairs p
    cross join lateral (
      select j.status, j.job_type from ops_jobs j
      where j.finished_at is not null and (j.status, j.job_type) > (p.status, p.job_type)
      order by j.status, j.job_type
      limit 1
    ) n
  )
  select k.status, k.job_type, k.keep
  from (select p.status, p.job_type, ops_kept_for(p.status, p.job_type) as keep from pairs p) k
  where k.keep is not null
$$;
comment on function ops_retention_terms() is 'For each status and type of which there are ended jobs, how long these are kept; what is kept for ever is left out.';

create function ops_retention_horizon(keep interval) returns timestamptz
language sql stable
as $$
  -- Nothing goes before its history was due to be sealed: a seal made later would have nothing to fit.
  -- least() passes nulls by, so a keep of null is asked for.
  select case when ops_retention_horizon.keep is not null then
    least(now() - ops_retention_horizon.keep, (select o.reached from ops_sweeps o where o.name = 'seal') - interval '20 seconds')
  end
$$;
comment on function ops_retention_horizon(interval) is 'What ended before this instant has been kept for so long; null: nothing has, it is kept for ever.';

create function ops_retention_due() returns table (job_type text, status text, keep interval, jobs bigint, events bigint, oldest timestamptz)
language sql stable
as $$
  select t.job_type, t.status, t.keep, d.jobs, d.events, d.oldest
  from ops_retention_terms() t
  cross join lateral (
    -- Events are numbered without gaps: the last number is their count.
    select count(*) as jobs, coalesce(sum(j.event_seq), 0)::bigint as events, min(j.finished_at) as oldest
    from ops_jobs j
    where j.status = t.status and j.job_type = t.job_type and j.finished_at is not null
      and j.finished_at < ops_retention_horizon(t.keep)
  ) d
  where d.jobs > 0
  order by 1, 2
$$;
comment on function ops_retention_due() is 'What ops_apply_retention would remove by now, by type and status. Changes nothing.';

create table ops_removals (
  day date not null,
  job_type text not null,
  status text not null,
  jobs bigint not null,
  events bigint not null,
  log_chunks bigint not null,
  files bigint not null,
  last_at timestamptz not null,
  last_by text not null,
  constraint ops_removals_pkey primary key (day, job_type, status)
);
comment on table ops_removals is 'What retention has removed, one row a day, type and status.';
comment on column ops_removals.day is 'The day of the removal, UTC.';
comment on column ops_removals.job_type is 'The type of the jobs.';
comment on column ops_removals.status is 'Their status.';
comment on column ops_removals.jobs is 'How many jobs.';
comment on column ops_removals.events is 'How many events with them.';
comment on column ops_removals.log_chunks is 'How many rows of ops_job_log.';
comment on column ops_removals.files is 'How many files.';
comment on column ops_removals.last_at is 'When the last of them went.';
comment on column ops_removals.last_by is 'Who removed these.';

-- A restored copy begins paused, and so that nothing of it happens by itself.
alter table ops_fleet add column restored_at timestamptz;
alter table ops_fleet add constraint ops_fleet_restored_is_paused check (restored_at is null or paused_at is not null);
comment on column ops_fleet.restored_at is 'Set by a restore until the fleet is resumed: meanwhile also no schedule fires and nothing is removed.';

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
    if new.paused_at is null then
      new.restored_at := null;
    end if;
    return new;
  end if;
  if new.paused_at is not null then
    new.paused_at := clock_timestamp();
    new.paused_by := ops_actor();
    new.reason := why;
  else
    new.paused_by := null;
    new.reason := null;
    new.restored_at := null;
  end if;
  insert into ops_fleet_changes (at, change, actor, reason)
  values (clock_timestamp(), case when new.paused_at is null then 'resumed' else 'paused' end, ops_actor(), why);
  return new;
end
$$;
comment on function ops_guard_fleet() is 'Notes who paused or resumed the fleet, when and why, however it was done. A paused fleet stays as it was paused.';

create function ops_guard_removal() returns trigger
language plpgsql
as $$
declare
  stack text;
begin
  get diagnostics stack = pg_context;
  -- Nobody else takes a job out, the superuser neither; and retention itself only what has been kept for long enough.
  if position('ops_apply_retention(' in stack) > 0 and old.finished_at < ops_retention_horizon(ops_kept_for(old.status, old.job_type))
  then
    return old;
  end if;
  raise exception '% on % is refused: history is append-only', tg_op, tg_table_name using
    errcode = 'check_violation', constraint = tg_table_name || '_append_only',
    hint = 'Stop a job with ops_abort(id); finished jobs leave by retention only: see select * from ops_retention.';
end
$$;
comment on function ops_guard_removal() is 'Jobs are removed by ops_apply_retention only, and only those whose time has passed.';

create function ops_guard_removed() returns trigger
language plpgsql
as $$
begin
  if exists (select from ops_jobs j where j.id = old.job_id) then
    raise exception '% on % is refused: history is append-only', tg_op, tg_table_name using
      errcode = 'check_violation', constraint = tg_table_name || '_append_only',
      hint = 'Stop a job with ops_abort(id); finished jobs leave by retention only.';
  end if;
  return old;
end
$$;
comment on function ops_guard_removed() is 'What belongs to a job''s history stays for as long as the job is there.';

drop trigger ops_jobs_no_delete on ops_jobs;
create trigger ops_jobs_no_delete before delete on ops_jobs
for each row execute function ops_guard_removal();
drop trigger ops_job_events_append_only on ops_job_events;
create trigger ops_job_events_append_only before update on ops_job_events
for each row execute function ops_refuse_change();
create trigger ops_job_events_leave before delete on ops_job_events
for each row execute function ops_guard_removed();
drop trigger ops_seals_append_only on ops_seals;
create trigger ops_seals_append_only before update on ops_seals
for each row execute function ops_refuse_change();
create trigger ops_seals_leave before delete on ops_seals
for each row execute function ops_guard_removed();

insert into ops_sweeps (name) values ('retention');
comment on column ops_sweeps.name is 'sweep: lost and outlived jobs are taken back. seal: the histories of ended jobs are sealed. retention: ended jobs are removed.';

create function ops_apply_retention(actor text default null, most int default 200)
returns table (job_type text, status text, jobs bigint, events bigint, log_chunks bigint, files bigint)
language plpgsql security definer set search_path = public, pg_temp
-- The plan of the last index would otherwise depend on statistics of tables that are empty most of the time.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  -- A call takes a fraction of a second, whatever is in it: so many events together, and so many bytes of files.
  most_events constant bigint := 20000;
  most_bytes constant bigint := 67108864;
  who text := coalesce(nullif(ops_apply_retention.actor, ''), ops_actor());
  free int := least(greatest(ops_apply_retention.most, 1), 1000);
  term record;
  horizon timestamptz;
  ids uuid[];
begin
  if exists (select from ops_fleet f where f.restored_at is not null) then
    return;
  end if;
  for term in select * from ops_retention_terms() t order by t.job_type, t.status loop
    exit when free <= 0;
    horizon := ops_retention_horizon(term.keep);
    -- Whoever has a job locked, to retry it say, keeps it.
    select array_agg(p.id) into ids
    from (
      select
        c.id,
        sum(c.event_seq) over oldest_first as events,
        sum(c.bytes) over oldest_first as bytes,
        row_number() over oldest_first as place
      from (
        select
          j.id, j.event_seq, j.finished_at,
          (
            select coalesce(sum(f.size), 0) from ops_files f
            where f.job_id = j.id and f.sha256 is not null and f.object is null
          ) as bytes
        from ops_jobs j
        where j.status = term.status and j.job_type = term.job_type
          and j.finished_at is not null and j.finished_at < horizon
        order by j.finished_at
        limit free
        for update of j skip locked
      ) c
      window oldest_first as (order by c.finished_at, c.id rows unbounded preceding)
    ) p
    where p.place = 1 or (p.events <= most_events and p.bytes <= most_bytes);
    continue when ids is null;

    job_type := term.job_type;
    status := term.status;
    select count(*) into files from ops_files f where f.job_id = any(ids) and f.sha256 is not null;
    -- First the job: what guards the rest asks whether it is gone. Its files go by ops_drop_files.
    delete from ops_jobs j where j.id = any(ids);
    get diagnostics jobs = row_count;
    delete from ops_job_events e where e.job_id = any(ids);
    get diagnostics events = row_count;
    delete from ops_job_log l where l.job_id = any(ids);
    get diagnostics log_chunks = row_count;
    delete from ops_seals s where s.job_id = any(ids);
    delete from ops_gate_approvals a where a.job_id = any(ids);
    delete from ops_gates g where g.job_id = any(ids);
    delete from ops_job_stages s where s.job_id = any(ids);

    insert into ops_removals as r (day, job_type, status, jobs, events, log_chunks, files, last_at, last_by)
    values ((now() at time zone 'UTC')::date, job_type, status, jobs, events, log_chunks, files, clock_timestamp(), who)
    on conflict on constraint ops_removals_pkey do update
    set jobs = r.jobs + excluded.jobs, events = r.events + excluded.events, log_chunks = r.log_chunks + excluded.log_chunks,
      files = r.files + excluded.files, last_at = excluded.last_at, last_by = excluded.last_by;
    free := free - jobs::int;
    return next;
  end loop;
  update ops_sweeps s set ran_at = clock_timestamp(), actor = who
  where s.name = (select l.name from ops_sweeps l where l.name = 'retention' for update skip locked);
end
$$;
comment on function ops_apply_retention(text, int) is
  'Removes some of the jobs whose time has passed (ops_retention), the oldest first, each whole with all that is theirs, and gives what it removed by type and status; nothing when nothing is left. Any number at once; call it again until it gives nothing.';

-- Backups and drills.

create table ops_backups (
  id uuid not null default ops_uuidv7(),
  started_at timestamptz not null,
  finished_at timestamptz not null default clock_timestamp(),
  file text not null,
  bytes bigint not null,
  sha256 bytea not null,
  schema_version bigint not null,
  jobs bigint,
  events bigint,
  objects bigint not null default 0,
  host text not null,
  actor text not null default ops_actor(),
  constraint ops_backups_pkey primary key (id),
  constraint ops_backups_sha256 check (octet_length(sha256) = 32)
);
comment on table ops_backups is 'Backups that were made and verified, one row each, written after the file stood under its name. A backup that failed has none.';
comment on column ops_backups.id is 'UUIDv7.';
comment on column ops_backups.started_at is 'The instant of the snapshot: what it holds.';
comment on column ops_backups.finished_at is 'When it was complete.';
comment on column ops_backups.file is 'The path of the dump on that host.';
comment on column ops_backups.bytes is 'Its size.';
comment on column ops_backups.sha256 is 'SHA-256 of it.';
comment on column ops_backups.schema_version is 'The newest migration in it.';
comment on column ops_backups.jobs is 'How many jobs it holds; null: made by pg_dump alone, not counted.';
comment on column ops_backups.events is 'How many events it holds; null: not counted.';
comment on column ops_backups.objects is 'How many objects of the object store were copied beside it.';
comment on column ops_backups.host is 'The host that made it.';
comment on column ops_backups.actor is 'Who.';
create index ops_backups_finished on ops_backups (finished_at desc);
comment on index ops_backups_finished is 'How old the newest backup is.';

create table ops_drills (
  id uuid not null default ops_uuidv7(),
  started_at timestamptz not null,
  finished_at timestamptz not null default clock_timestamp(),
  ok boolean not null,
  file text,
  backup_age_seconds double precision,
  restore_seconds double precision,
  jobs bigint,
  events bigint,
  problems text[] not null default '{}',
  host text not null,
  actor text not null default ops_actor(),
  constraint ops_drills_pkey primary key (id),
  constraint ops_drills_ok_iff_no_problems check (ok = (cardinality(problems) = 0))
);
comment on table ops_drills is 'Restores of the newest backup into a scratch database, done to prove it, one row each, those that failed too.';
comment on column ops_drills.id is 'UUIDv7.';
comment on column ops_drills.started_at is 'When it began.';
comment on column ops_drills.finished_at is 'When it ended.';
comment on column ops_drills.ok is 'Whether the restored copy was what had been backed up.';
comment on column ops_drills.file is 'The path of the dump on that host; null: there was none.';
comment on column ops_drills.backup_age_seconds is 'How old the backup''s snapshot was: what would have been lost.';
comment on column ops_drills.restore_seconds is 'How long the restore took, until the copy was ready to be resumed.';
comment on column ops_drills.jobs is 'How many jobs the copy had.';
comment on column ops_drills.events is 'How many events.';
comment on column ops_drills.problems is 'What was wrong, a sentence each; empty exactly when it was ok.';
comment on column ops_drills.host is 'The host that did it.';
comment on column ops_drills.actor is 'Who.';
create index ops_drills_finished on ops_drills (finished_at desc);
comment on index ops_drills_finished is 'How old the newest drill is.';

create function ops_after_restore(why text) returns table (lost bigint, fence bigint)
language plpgsql set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  highest bigint;
  was ops_fleet;
begin
  perform set_config('ops.actor', 'restore', true);
  -- The live system went on after the backup, and other copies of the same backup may have been at work: what either has
  -- given out is not in here. Two million numbers for each second since 2026 are above all of it, as long as nobody claims
  -- faster than that, and they stay below 2^53, beyond which JSON is not exact, until the year 2162.
  select greatest(
    (select f.last_value from ops_fence f),
    (select coalesce(max(j.fence), 0) from ops_jobs j),
    (select coalesce(max(l.fence), 0) from ops_job_log l),
    (select coalesce(max(f.fence), 0) from ops_files f)
  ) into highest;
  fence := greatest(
    highest + 1048576,
    floor(extract(epoch from clock_timestamp() - '2026-01-01 00:00:00Z'::timestamptz) * 2097152)::bigint
  );
  perform setval('ops_fence', fence);

  select * into was from ops_fleet;
  if was.paused_at is not null then
    perform ops_resume_fleet('restored');
  end if;
  perform ops_pause_fleet(why || case when was.paused_at is not null
    then format('; it had been paused by %s%s', was.paused_by, coalesce(': ' || was.reason, '')) else '' end);
  update ops_fleet f set restored_at = clock_timestamp();

  -- As the sweep takes back what lost runners held: whoever ran these runs them for another database now, if at all.
  perform set_config('ops.cause', 'lease_expired', true);
  update ops_jobs j
  set status = case
      when j.abort_requested_at is not null then 'aborted'
      when j.lost_count >= 2 then 'failed'
      when j.on_lost = 'hold' then 'waiting'
      when j.attempt < j.max_attempts then 'queued'
      else 'failed'
    end,
    lost_count = j.lost_count + 1,
    error = format('runner %s was lost: the database was restored from a backup made in attempt %s of %s', j.runner_id, j.attempt, j.max_attempts),
    run_at = clock_timestamp(),
    dead_lettered_at = case
      when j.abort_requested_at is null and (j.lost_count >= 2 or (j.on_lost <> 'hold' and j.attempt >= j.max_attempts)) then clock_timestamp()
    end
  where j.status = 'running';
  get diagnostics lost = row_count;
  perform set_config('ops.cause', '', true), set_config('ops.actor', '', true);
  return next;
end
$$;
comment on function ops_after_restore(text) is
  'What a restored copy begins with, in the transaction that fills it: the fence above every older one, the fleet paused, what was running taken back. Part of opsctl db restore; after a pg_restore by hand, call it before any program connects.';
revoke execute on function ops_after_restore(text), ops_apply_retention(text, int) from public;
