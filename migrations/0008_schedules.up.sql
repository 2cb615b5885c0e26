-- Schedules, and the ledger in which each of their instants ends exactly once.
--
-- The instants themselves are computed by the programs (cron patterns and time zones are no matter of SQL). A tick locks
-- one schedule, decides what is due by the database's clock, writes the ledger, records the jobs and moves the cursor, all
-- in one transaction. The primary key of the ledger is what keeps (schedule, instant) to one job, whoever ticks.

create table ops_schedules (
  name text not null,
  cron text not null,
  timezone text not null default 'UTC',
  job_type text not null,
  payload jsonb not null default '{}',
  queue text not null default 'default',
  priority smallint not null default 0,
  labels jsonb not null default '{}',
  ttl_seconds int,
  max_attempts int,
  timeout_seconds int,
  catch_up text not null default 'skip',
  catch_up_limit int not null default 100,
  grace_seconds int not null default 300,
  overlap text not null default 'allow',
  jitter_seconds int not null default 0,
  enabled boolean not null default true,
  paused_at timestamptz,
  paused_by text,
  pause_reason text,
  resumed_at timestamptz,
  next_fire_at timestamptz,
  due_at timestamptz,
  grid_since timestamptz not null default clock_timestamp(),
  waiting_instant timestamptz,
  open_jobs uuid[] not null default '{}',
  fault text,
  revision bigint not null default 1,
  created_by text not null default ops_actor(),
  created_at timestamptz not null default clock_timestamp(),
  updated_by text not null default ops_actor(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint ops_schedules_pkey primary key (name),
  constraint ops_schedules_names check (
    name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$' and name <> 'preview'
    and job_type ~ '^[a-z][a-z0-9_]{0,63}$' and queue ~ '^[a-z][a-z0-9_]{0,63}$'
  ),
  constraint ops_schedules_cron_length check (length(cron) between 1 and 255 and length(timezone) between 1 and 255),
  constraint ops_schedules_payload_fits check (ops_payload_fits(payload)),
  constraint ops_schedules_labels_texts check (
    jsonb_typeof(labels) = 'object' and not jsonb_path_exists(labels, 'strict $.* ? (@.type() != "string")')
    and not labels ?| array['schedule', 'scheduled_for']
  ),
  constraint ops_schedules_ttl_seconds check (ttl_seconds between 1 and 31536000),
  constraint ops_schedules_max_attempts check (max_attempts between 1 and 1000),
  constraint ops_schedules_timeout_seconds check (timeout_seconds between 1 and 2592000),
  constraint ops_schedules_catch_up_known check (catch_up in ('skip', 'one', 'all')),
  constraint ops_schedules_catch_up_limit check (catch_up_limit between 1 and 1000),
  constraint ops_schedules_grace_seconds check (grace_seconds between 1 and 86400),
  constraint ops_schedules_overlap_known check (overlap in ('skip', 'queue', 'allow')),
  constraint ops_schedules_jitter_seconds check (jitter_seconds between 0 and 86400),
  constraint ops_schedules_next_fire_at check (next_fire_at between '2000-01-01Z' and '2201-01-01Z')
);
comment on table ops_schedules is 'Work that nobody starts by hand, one row a schedule. Stop one with ops_pause_schedule(name, reason).';
comment on column ops_schedules.name is 'What it is called; matches [a-z0-9][a-z0-9_.-]{0,63}; never changes.';
comment on column ops_schedules.cron is 'Five fields (minute, hour, day, month, weekday), or @hourly, @daily, @weekly, @monthly, @yearly.';
comment on column ops_schedules.timezone is 'The IANA time zone of whose wall clock cron speaks.';
comment on column ops_schedules.job_type is 'The type of the jobs it makes.';
comment on column ops_schedules.payload is 'The payload of the jobs it makes.';
comment on column ops_schedules.queue is 'The queue of the jobs it makes.';
comment on column ops_schedules.priority is 'The priority of the jobs it makes.';
comment on column ops_schedules.labels is 'The labels of the jobs it makes, beside schedule and scheduled_for.';
comment on column ops_schedules.ttl_seconds is 'A job that is still queued after so long fails; null: never.';
comment on column ops_schedules.max_attempts is 'Attempts of the jobs it makes; null: the job type decides.';
comment on column ops_schedules.timeout_seconds is 'An attempt is killed after so long; null: the job type decides.';
comment on column ops_schedules.catch_up is 'What becomes of instants that no tick came upon in time: skip (none), one (the newest) or all, up to catch_up_limit.';
comment on column ops_schedules.catch_up_limit is 'With catch_up all, at most so many late instants are made up for, the newest; the others are missed.';
comment on column ops_schedules.grace_seconds is 'An instant is late when no tick came upon it for so long.';
comment on column ops_schedules.overlap is 'When a job of it has not ended at the next instant: skip that instant, queue it (one waits), or allow both.';
comment on column ops_schedules.jitter_seconds is 'Each job is recorded up to so much later than its instant, by an amount that is always the same for the same instant.';
comment on column ops_schedules.enabled is 'False: paused; its instants are recorded as paused and make no jobs.';
comment on column ops_schedules.paused_at is 'When it was last paused.';
comment on column ops_schedules.paused_by is 'Who last paused it.';
comment on column ops_schedules.pause_reason is 'Why it was last paused.';
comment on column ops_schedules.resumed_at is 'When it was last resumed; null while it is paused.';
comment on column ops_schedules.next_fire_at is 'The next instant that is not decided yet; null: the next tick computes it, from grid_since on.';
comment on column ops_schedules.due_at is 'When that instant is due: itself and its jitter.';
comment on column ops_schedules.grid_since is 'Since when its cron and timezone hold.';
comment on column ops_schedules.waiting_instant is 'With overlap queue: the instant that waits for the job before it to end.';
comment on column ops_schedules.open_jobs is 'Its newest jobs (at most 100) that had not ended when it last fired; for overlap.';
comment on column ops_schedules.fault is 'Why the last tick could not fire it; null: it could.';
comment on column ops_schedules.revision is 'Grows with each change of what it does; a change may be asked for on one revision only.';
comment on column ops_schedules.created_by is 'Who made it.';
comment on column ops_schedules.created_at is 'When it was made.';
comment on column ops_schedules.updated_by is 'Who changed it last.';
comment on column ops_schedules.updated_at is 'When it was changed last.';

create table ops_schedule_fires (
  schedule text not null,
  instant timestamptz not null,
  through timestamptz not null,
  instants int not null default 1,
  outcome text not null,
  reason text,
  job_id uuid,
  manual boolean not null default false,
  actor text not null default ops_actor(),
  at timestamptz not null default clock_timestamp(),
  -- No foreign key: the ledger outlives its schedule, so that an instant is not fired again by one made anew under its name.
  constraint ops_schedule_fires_pkey primary key (schedule, instant),
  constraint ops_schedule_fires_outcome_known check (outcome in ('fired', 'skipped', 'missed', 'paused')),
  constraint ops_schedule_fires_job_iff_fired check ((outcome = 'fired') = (job_id is not null)),
  constraint ops_schedule_fires_range check (
    instants >= 1 and through >= instant and (instants > 1) = (through > instant) and (outcome in ('missed', 'paused') or instants = 1)
  )
);
comment on table ops_schedule_fires is 'What became of each instant of each schedule. Kept for 90 days.';
comment on column ops_schedule_fires.schedule is 'The schedule''s name.';
comment on column ops_schedule_fires.instant is 'The instant, by the schedule and not by any clock; of several in one row the first.';
comment on column ops_schedule_fires.through is 'The last instant that the row stands for; mostly the same as instant.';
comment on column ops_schedule_fires.instants is 'How many instants of the schedule the row stands for: more than one after a long time without a tick.';
comment on column ops_schedule_fires.outcome is 'fired, skipped (overlap), missed (no tick came in time) or paused.';
comment on column ops_schedule_fires.reason is 'Why; null for what fired as it should.';
comment on column ops_schedule_fires.job_id is 'The job that was recorded for it; set exactly when it fired.';
comment on column ops_schedule_fires.manual is 'True when somebody fired it by hand, outside its cron.';
comment on column ops_schedule_fires.actor is 'Who decided it: the runner or the key that ticked, or who fired it by hand.';
comment on column ops_schedule_fires.at is 'When it was decided.';
create index ops_schedule_fires_at on ops_schedule_fires (at);
comment on index ops_schedule_fires_at is 'Retention: what was decided more than 90 days ago.';

create function ops_guard_schedule() returns trigger
language plpgsql
as $$
declare
  instant timestamptz := clock_timestamp();
begin
  if tg_op = 'INSERT' then
    new.due_at := coalesce(new.due_at, new.next_fire_at);
    if not new.enabled then
      new.paused_at := instant;
      new.paused_by := ops_actor();
      new.pause_reason := nullif(current_setting('ops.reason', true), '');
    end if;
    return new;
  end if;
  if new.name <> old.name or new.created_at <> old.created_at or new.created_by <> old.created_by then
    raise exception 'name, created_at and created_by of schedule % never change', old.name using
      errcode = 'check_violation', constraint = 'ops_schedules_immutable';
  end if;
  if (new.cron, new.timezone) is distinct from (old.cron, old.timezone) then
    new.grid_since := instant;
    if new.next_fire_at is not distinct from old.next_fire_at then
      new.next_fire_at := null;
    end if;
  end if;
  -- A cursor that was set by hand, or has another jitter now, is looked at in time; the tick adds the jitter.
  if new.due_at is not distinct from old.due_at
    and (new.next_fire_at is distinct from old.next_fire_at or new.jitter_seconds <> old.jitter_seconds)
  then
    new.due_at := new.next_fire_at;
  end if;
  if new.enabled <> old.enabled then
    if new.enabled then
      new.resumed_at := instant;
    else
      new.paused_at := instant;
      new.paused_by := ops_actor();
      new.pause_reason := nullif(current_setting('ops.reason', true), '');
      new.resumed_at := null;
    end if;
  end if;
  if (
    new.cron, new.timezone, new.job_type, new.payload, new.queue, new.priority, new.labels, new.ttl_seconds,
    new.max_attempts, new.timeout_seconds, new.catch_up, new.catch_up_limit, new.grace_seconds, new.overlap,
    new.jitter_seconds, new.enabled
  ) is distinct from (
    old.cron, old.timezone, old.job_type, old.payload, old.queue, old.priority, old.labels, old.ttl_seconds,
    old.max_attempts, old.timeout_seconds, old.catch_up, old.catch_up_limit, old.grace_seconds, old.overlap,
    old.jitter_seconds, old.enabled
  ) then
    new.revision := old.revision + 1;
    new.updated_at := instant;
    new.updated_by := ops_actor();
    new.fault := null;
  end if;
  return new;
end
$$;
comment on function ops_guard_schedule() is 'Sets what follows from a change of a schedule, made by a program or by hand: its revision, who paused it, its cursor.';

create trigger ops_schedules_guard before insert or update on ops_schedules
for each row execute function ops_guard_schedule();

create function ops_record_scheduled(schedule text, instant timestamptz, created_by text) returns uuid
language sql
as $$
  insert into ops_jobs (
    job_type, payload, queue, priority, labels, expires_at, max_attempts, max_attempts_by_type, timeout_seconds, created_by
  )
  select
    s.job_type, s.payload, s.queue, s.priority,
    s.labels || jsonb_build_object(
      'schedule', s.name,
      'scheduled_for', to_char(ops_record_scheduled.instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    ),
    clock_timestamp() + make_interval(secs => s.ttl_seconds),
    coalesce(s.max_attempts, 1), s.max_attempts is null, s.timeout_seconds, ops_record_scheduled.created_by
  from ops_schedules s
  where s.name = ops_record_scheduled.schedule
  returning id
$$;
comment on function ops_record_scheduled(text, timestamptz, text) is
  'Records the job of one instant of a schedule and gives its id. Part of firing: whoever calls it writes the ledger in the same transaction.';

create function ops_pause_schedule(name text, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  perform set_config('ops.reason', coalesce(ops_pause_schedule.reason, ''), true);
  update ops_schedules s set enabled = false where s.name = ops_pause_schedule.name and s.enabled;
  perform set_config('ops.reason', '', true);
  if not exists (select from ops_schedules s where s.name = ops_pause_schedule.name) then
    raise exception 'no schedule %', ops_pause_schedule.name using errcode = 'no_data_found';
  end if;
  return 'paused';
end
$$;
comment on function ops_pause_schedule(text, text) is
  'Stops a schedule until it is resumed; its instants are recorded as paused. Who and why stay with it. A paused one stays as it is.';

create function ops_resume_schedule(name text) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  update ops_schedules s set enabled = true where s.name = ops_resume_schedule.name and not s.enabled;
  if not exists (select from ops_schedules s where s.name = ops_resume_schedule.name) then
    raise exception 'no schedule %', ops_resume_schedule.name using errcode = 'no_data_found';
  end if;
  return 'resumed';
end
$$;
comment on function ops_resume_schedule(text) is 'Lets a paused schedule fire again, from its next instant on; what passed meanwhile is recorded as paused.';

create function ops_fire_schedule(name text, reason text default null) returns uuid
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  job uuid;
  fired_at timestamptz;
begin
  perform from ops_schedules s where s.name = ops_fire_schedule.name for update;
  if not found then
    raise exception 'no schedule %', ops_fire_schedule.name using errcode = 'no_data_found';
  end if;
  fired_at := clock_timestamp();
  job := ops_record_scheduled(ops_fire_schedule.name, fired_at, ops_actor());
  insert into ops_schedule_fires (schedule, instant, through, outcome, reason, job_id, manual)
  values (ops_fire_schedule.name, fired_at, fired_at, 'fired', ops_fire_schedule.reason, job, true);
  update ops_schedules s
  set open_jobs = (s.open_jobs || job)[greatest(1, cardinality(s.open_jobs) - 98):]
  where s.name = ops_fire_schedule.name;
  return job;
end
$$;
comment on function ops_fire_schedule(text, text) is
  'Records a job of a schedule now, outside its cron and whether or not it is paused, and gives the job''s id; the ledger says who and why.';

create view ops_next_fires as
select
  s.name, s.next_fire_at, s.due_at, s.due_at - clock_timestamp() as due_in, s.enabled, s.cron, s.timezone, s.job_type,
  s.waiting_instant, s.fault
from ops_schedules s
order by s.enabled desc, s.due_at nulls first;
comment on view ops_next_fires is 'What fires next, the soonest first; paused schedules last.';
comment on column ops_next_fires.name is 'The schedule.';
comment on column ops_next_fires.next_fire_at is 'Its next instant; null: the next tick computes it.';
comment on column ops_next_fires.due_at is 'When that instant is due: itself and its jitter.';
comment on column ops_next_fires.due_in is 'How long that is from now; negative: the next tick fires it.';
comment on column ops_next_fires.enabled is 'False: paused.';
comment on column ops_next_fires.cron is 'Its pattern.';
comment on column ops_next_fires.timezone is 'Its time zone.';
comment on column ops_next_fires.job_type is 'What it starts.';
comment on column ops_next_fires.waiting_instant is 'The instant that waits for the job before it to end, if any.';
comment on column ops_next_fires.fault is 'Why the last tick could not fire it; null: it could.';
