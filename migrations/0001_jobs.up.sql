-- The job, its events, and the state machine that the database itself guards.
--
-- How a change of status travels:
--   1. ops_guard_job (before each row) sets what follows from the change: attempt, fence, lease, instants, event numbers.
--   2. ops_record_transitions (after the statement) refuses illegal pairs and writes the events, for all rows at once,
--      so that a batch of 500 pays for one insert and not for 500.
-- Writers say who they are and why through two transaction-local settings: ops.actor and ops.cause (and ops.reason).
-- A person in psql needs neither: the actor is then the login, the event the transition's own.

create sequence ops_fence as bigint cache 1;
comment on sequence ops_fence is 'Fencing numbers: each claim takes the next one; it never goes back.';

create function ops_uuidv7() returns uuid
language sql volatile parallel safe
as $$
  -- RFC 9562, version 7: 48 bits of milliseconds, 12 bits of the fraction of the millisecond, 62 random bits.
  select encode(
    set_byte(
      set_byte(
        overlay(
          uuid_send(gen_random_uuid())
          placing substring(int8send(floor(t.ms)::bigint) from 3) from 1 for 6
        ),
        6, 112 | (t.fraction >> 8)
      ),
      7, t.fraction & 255
    ),
    'hex'
  )::uuid
  from (
    select c.ms, floor((c.ms - floor(c.ms)) * 4096)::int as fraction
    from (select extract(epoch from clock_timestamp()) * 1000 as ms offset 0) c
    offset 0
  ) t
$$;
comment on function ops_uuidv7() is 'A new UUIDv7 by the database''s clock; ids sort by creation.';

create function ops_actor() returns text
language sql stable parallel safe
as $$ select coalesce(nullif(current_setting('ops.actor', true), ''), session_user::text) $$;
comment on function ops_actor() is 'Who is acting: the setting ops.actor where a program set it, else the login.';

create table ops_jobs (
  id uuid not null default ops_uuidv7(),
  job_type text not null,
  queue text not null default 'default',
  status text not null default 'queued',
  priority smallint not null default 0,
  payload jsonb not null default '{}',
  result jsonb,
  error text,
  attempt int not null default 0,
  max_attempts int not null default 1,
  max_attempts_by_type boolean not null default false,
  lost_count int not null default 0,
  on_lost text not null default 'retry',
  held_at timestamptz,
  run_at timestamptz not null default now(),
  expires_at timestamptz,
  timeout_seconds int,
  idempotency_key text,
  request_hash bytea,
  labels jsonb not null default '{}',
  runner_id text,
  boot_id uuid,
  slot_no int,
  lease_expires_at timestamptz,
  heartbeat_at timestamptz,
  fence bigint not null default 0,
  progress jsonb,
  abort_requested_at timestamptz,
  dead_lettered_at timestamptz,
  last_trigger_at timestamptz,
  last_trigger_outcome text,
  event_seq int not null default 1,
  created_by text not null default ops_actor(),
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  updated_at timestamptz not null default clock_timestamp(),
  constraint ops_jobs_pkey primary key (id),
  -- Few and cheap: a check is evaluated at every update, renewals included. What can only be wrong
  -- at the insert (names, ranges) is checked by ops_guard_new_job, once.
  constraint ops_jobs_status_known check (status in ('queued', 'running', 'waiting', 'succeeded', 'failed', 'aborted')),
  constraint ops_jobs_slot_only_running check (slot_no is null or status = 'running'),
  constraint ops_jobs_lease_iff_running check ((status = 'running') = (lease_expires_at is not null)),
  constraint ops_jobs_finished_iff_terminal check ((status in ('succeeded', 'failed', 'aborted')) = (finished_at is not null))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

comment on table ops_jobs is 'Every job, one row each. Change its status with ops_abort(id) or ops_retry(id); a plain UPDATE obeys the same rules.';
comment on column ops_jobs.id is 'UUIDv7 made by the database: sorts by creation.';
comment on column ops_jobs.job_type is 'What is to be done; matches [a-z][a-z0-9_]{0,63}; never changes.';
comment on column ops_jobs.queue is 'A name to sort jobs by; matches [a-z][a-z0-9_]{0,63}.';
comment on column ops_jobs.status is 'queued, running, waiting, succeeded, failed or aborted; ops_job_transitions lists the legal changes.';
comment on column ops_jobs.priority is 'Higher runs first; 0 unless asked otherwise.';
comment on column ops_jobs.payload is 'What the handler is given.';
comment on column ops_jobs.result is 'What the handler answered when it succeeded.';
comment on column ops_jobs.error is 'Why the last attempt failed, in words.';
comment on column ops_jobs.attempt is 'How many times it was claimed since it was recorded or replayed; released claims are not counted.';
comment on column ops_jobs.max_attempts is 'After so many attempts a failure is final.';
comment on column ops_jobs.max_attempts_by_type is 'True while the caller left max_attempts to the job type; the claim then takes it from the runner''s configuration.';
comment on column ops_jobs.lost_count is 'How many of its attempts ended because the runner was lost; the third fails the job.';
comment on column ops_jobs.run_at is 'Not claimed before this instant.';
comment on column ops_jobs.expires_at is 'Fails if it is still queued at this instant (ttl_seconds); null: never.';
comment on column ops_jobs.timeout_seconds is 'An attempt is killed after so long, in seconds; null: the job type decides.';
comment on column ops_jobs.idempotency_key is 'The caller''s Idempotency-Key; at most one job bears it.';
comment on column ops_jobs.request_hash is 'SHA-256 of what was asked under the idempotency key; the same key with another request is refused.';
comment on column ops_jobs.labels is 'The caller''s own names and values, for filtering.';
comment on column ops_jobs.runner_id is 'The runner that holds it, or that ended it.';
comment on column ops_jobs.boot_id is 'Which start of that runner claimed it.';
comment on column ops_jobs.lease_expires_at is 'The claim holds until this instant unless it is renewed; set exactly while running.';
comment on column ops_jobs.heartbeat_at is 'When the runner last claimed it or renewed its lease.';
comment on column ops_jobs.fence is 'The fencing number of its newest claim; it only grows, and every write of a runner must name it.';
comment on column ops_jobs.progress is 'The last progress that the handler reported.';
comment on column ops_jobs.abort_requested_at is 'When somebody asked to stop the running attempt.';
comment on column ops_jobs.dead_lettered_at is 'When it failed with its attempts used up.';
comment on column ops_jobs.event_seq is 'The number of its newest event; kept by the database.';
comment on column ops_jobs.created_by is 'Who recorded it: a key''s id, a runner, or a login.';
comment on column ops_jobs.created_at is 'When it was recorded, by the database''s clock.';
comment on column ops_jobs.started_at is 'When its newest attempt began.';
comment on column ops_jobs.finished_at is 'When it reached a terminal status; set exactly while it has one.';
comment on column ops_jobs.updated_at is 'When its status last changed.';
comment on column ops_jobs.on_lost is 'What becomes of it when its runner is lost, by the job type at its newest claim: retry, or hold (it then waits for ops_resume).';
comment on column ops_jobs.held_at is 'Since when it waits because its runner was lost and its type holds lost jobs; set exactly then.';
comment on column ops_jobs.slot_no is 'The place of its type that it holds in ops_slots while it runs; null where the type has no limit.';
comment on column ops_jobs.last_trigger_at is 'When the control plane last asked a runner to take it.';
comment on column ops_jobs.last_trigger_outcome is 'What came of that: accepted, deferred, not_queued, refused, unreachable, too_slow, or strange and the status.';

-- Claims: the small index of what may be claimed, in claiming order. No renewal touches an indexed column.
create index ops_jobs_due on ops_jobs (priority desc, run_at, id) where status = 'queued';
comment on index ops_jobs_due is 'Claims: the due jobs in claiming order.';
-- Sweeps, stalled jobs, `status=running`.
create index ops_jobs_running on ops_jobs (id) where status = 'running';
comment on index ops_jobs_running is 'Sweeps of expired leases, and the list of what runs.';
-- Time to live.
create index ops_jobs_expiring on ops_jobs (expires_at) where status = 'queued' and expires_at is not null;
comment on index ops_jobs_expiring is 'Queued jobs whose time to live runs out.';
-- `status=failed` and the like: the rare ends, so that finding them does not read the many that succeeded.
create index ops_jobs_ended_badly on ops_jobs (status, id) where status in ('waiting', 'failed', 'aborted');
comment on index ops_jobs_ended_badly is 'Lists of waiting, failed and aborted jobs, and the dead letters.';
create unique index ops_jobs_idempotency_key on ops_jobs (idempotency_key) where idempotency_key is not null;
comment on index ops_jobs_idempotency_key is 'One job for one Idempotency-Key.';
create index ops_jobs_labels on ops_jobs using gin (labels jsonb_path_ops) where labels <> '{}';
comment on index ops_jobs_labels is 'Lists filtered by label.';

create table ops_job_events (
  job_id uuid not null,
  seq int not null,
  at timestamptz not null default clock_timestamp(),
  kind text not null,
  attempt int not null,
  runner_id text,
  actor text not null default ops_actor(),
  data jsonb not null default '{}',
  -- No foreign key: rows come only from the triggers below, under the job's row lock, and jobs are never deleted without them.
  constraint ops_job_events_pkey primary key (job_id, seq)
);
comment on table ops_job_events is 'Everything that happened to a job, append-only, numbered 1, 2, 3 … within the job without gaps.';
comment on column ops_job_events.job_id is 'The job.';
comment on column ops_job_events.seq is 'Its number within the job; given by the database.';
comment on column ops_job_events.at is 'When, by the database''s clock.';
comment on column ops_job_events.kind is 'What happened: queued, running, succeeded, failed, retry_scheduled, lease_expired, …';
comment on column ops_job_events.attempt is 'The attempt it belongs to; 0 before the first.';
comment on column ops_job_events.runner_id is 'The runner concerned, if any.';
comment on column ops_job_events.actor is 'Who did it: a key''s id, a runner, or a login.';
comment on column ops_job_events.data is 'Details, deterministic by kind.';
create index ops_job_events_at on ops_job_events using brin (at) with (pages_per_range = 32);
comment on index ops_job_events_at is 'Rollups read the events of an hour.';

create table ops_job_transitions (
  from_status text not null,
  to_status text not null,
  kind text not null,
  meaning text not null,
  constraint ops_job_transitions_pkey primary key (from_status, to_status)
);
comment on table ops_job_transitions is 'The legal changes of a job''s status. Every other pair is refused.';
comment on column ops_job_transitions.from_status is 'Status before.';
comment on column ops_job_transitions.to_status is 'Status after.';
comment on column ops_job_transitions.kind is 'The event it writes.';
comment on column ops_job_transitions.meaning is 'When it happens.';

insert into ops_job_transitions (from_status, to_status, kind, meaning) values
  ('queued', 'running', 'running', 'A runner claimed it.'),
  ('queued', 'failed', 'failed', 'A runner refused it, or its time to live ran out.'),
  ('queued', 'aborted', 'aborted', 'Somebody asked for it.'),
  ('running', 'succeeded', 'succeeded', 'The handler finished.'),
  ('running', 'queued', 'retry_scheduled', 'The attempt failed and others are left; or the runner gave it back, then the event is released.'),
  ('running', 'failed', 'failed', 'It failed for good.'),
  ('running', 'waiting', 'gate_opened', 'A stage ended at a gate that waits for a person.'),
  ('running', 'aborted', 'aborted', 'The runner stopped it because somebody asked for it.'),
  ('waiting', 'queued', 'resumed', 'A person let it go on.'),
  ('waiting', 'aborted', 'aborted', 'Somebody asked for it.'),
  ('failed', 'queued', 'replayed', 'A person asked for a fresh start.'),
  ('aborted', 'queued', 'replayed', 'A person asked for a fresh start.');

create function ops_what_to_do_instead(from_status text, to_status text, id uuid) returns text
language sql immutable
as $$
  select case
    when from_status = to_status then
      format('The job is %s already: leave status out of the UPDATE, or change it with ops_abort(%L) or ops_retry(%L).', from_status, id, id)
    when from_status = 'succeeded' then
      'A succeeded job is final: record a new one with ops_enqueue(job_type, payload).'
    when from_status in ('failed', 'aborted') then
      format('The job has ended: queue it again with ops_retry(%L).', id)
    else
      format('Only the runner that holds the job moves it so: stop the job with ops_abort(%L), and start an ended one with ops_retry(%L).', id, id)
  end
$$;
comment on function ops_what_to_do_instead(text, text, uuid) is 'The hint that goes with a refused change of status.';

create function ops_payload_fits(payload jsonb) returns boolean
language sql immutable parallel safe
as $$
  -- Nested not deeper than 64, and no number beyond a double: what programs in other languages could not read again.
  -- Level 64 is the 65th, the root being level 0.
  select not (
    jsonb_path_exists(payload, 'strict $.**{64} ? (@.type() == "object" || @.type() == "array")')
    or jsonb_path_exists(payload, 'strict $.** ? (@.type() == "number" && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))')
  )
$$;
comment on function ops_payload_fits(jsonb) is 'Whether every program can read this JSON: at most 64 levels, no number beyond a double.';

create function ops_guard_new_job() returns trigger
language plpgsql
as $$
begin
  if new.status <> 'queued' or new.attempt <> 0 or new.fence <> 0 or new.event_seq <> 1 or new.lost_count <> 0
    or new.started_at is not null or new.abort_requested_at is not null or new.dead_lettered_at is not null
    or new.runner_id is not null or new.result is not null
  then
    raise exception 'a new job begins as queued' using
      errcode = 'check_violation', constraint = 'ops_jobs_begins_queued',
      hint = 'Record it with ops_enqueue(job_type, payload).';
  end if;
  if new.job_type !~ '^[a-z][a-z0-9_]{0,63}$' or new.queue !~ '^[a-z][a-z0-9_]{0,63}$' then
    raise exception 'job_type and queue match [a-z][a-z0-9_]{0,63}' using
      errcode = 'check_violation', constraint = 'ops_jobs_names';
  end if;
  if new.max_attempts not between 1 and 1000 then
    raise exception 'max_attempts is 1 to 1000' using errcode = 'check_violation', constraint = 'ops_jobs_max_attempts';
  end if;
  if new.timeout_seconds not between 1 and 2592000 then
    raise exception 'timeout_seconds is 1 to 2592000 (30 days)' using
      errcode = 'check_violation', constraint = 'ops_jobs_timeout_seconds';
  end if;
  if new.run_at not between '2000-01-01Z' and '2201-01-01Z' or new.expires_at not between '2000-01-01Z' and '2301-01-01Z' then
    raise exception 'run_at lies in the years 2000 to 2200' using errcode = 'check_violation', constraint = 'ops_jobs_instants';
  end if;
  if new.created_at not between clock_timestamp() - interval '1 minute' and clock_timestamp() then
    raise exception 'created_at is set by the database' using errcode = 'check_violation', constraint = 'ops_jobs_created_at';
  end if;
  if length(new.idempotency_key) not between 1 and 255 then
    raise exception 'an idempotency key has 1 to 255 characters' using
      errcode = 'check_violation', constraint = 'ops_jobs_idempotency_key_length';
  end if;
  if not ops_payload_fits(new.payload) then
    raise exception 'payload is nested deeper than 64 levels or holds a number beyond a double' using
      errcode = 'check_violation', constraint = 'ops_jobs_payload_fits';
  end if;
  raise exception 'labels is a JSON object of texts' using errcode = 'check_violation', constraint = 'ops_jobs_labels_object';
end
$$;
comment on function ops_guard_new_job() is 'Refuses a new row that is not a sane queued job.';

-- A well-formed row never enters the function: the condition is cheaper than the call.
create trigger ops_jobs_guard_insert before insert on ops_jobs
for each row when (
  new.status <> 'queued' or new.attempt <> 0 or new.fence <> 0 or new.event_seq <> 1 or new.lost_count <> 0
  or new.started_at is not null or new.abort_requested_at is not null or new.dead_lettered_at is not null
  or new.runner_id is not null or new.result is not null
  or new.job_type !~ '^[a-z][a-z0-9_]{0,63}$' or new.queue !~ '^[a-z][a-z0-9_]{0,63}$'
  or new.max_attempts not between 1 and 1000
  or new.timeout_seconds not between 1 and 2592000
  or new.run_at not between '2000-01-01Z' and '2201-01-01Z'
  or new.expires_at not between '2000-01-01Z' and '2301-01-01Z'
  or new.created_at not between clock_timestamp() - interval '1 minute' and clock_timestamp()
  or length(new.idempotency_key) not between 1 and 255
  or (new.labels <> '{}' and (
    jsonb_typeof(new.labels) <> 'object' or jsonb_path_exists(new.labels, 'strict $.* ? (@.type() != "string")')
  ))
  or (new.payload <> '{}' and not ops_payload_fits(new.payload))
)
execute function ops_guard_new_job();

create function ops_record_new_jobs() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  insert into ops_job_events (job_id, seq, kind, attempt, actor, data)
  select
    n.id, 1, 'queued', 0, n.created_by,
    jsonb_build_object(
      'job_type', n.job_type, 'queue', n.queue, 'priority', n.priority,
      'max_attempts', n.max_attempts, 'run_at', n.run_at
    )
  from new_rows n;
  return null;
end
$$;
comment on function ops_record_new_jobs() is 'Writes the first event of each new job.';

create trigger ops_jobs_record_insert after insert on ops_jobs
referencing new table as new_rows
for each statement execute function ops_record_new_jobs();

create function ops_guard_job() returns trigger
language plpgsql
as $$
declare
  instant timestamptz := clock_timestamp();
begin
  if new.id <> old.id or new.job_type <> old.job_type or new.created_at <> old.created_at
    or new.created_by <> old.created_by or new.idempotency_key is distinct from old.idempotency_key
  then
    raise exception 'id, job_type, created_at, created_by and idempotency_key of job % never change', old.id using
      errcode = 'check_violation', constraint = 'ops_jobs_immutable',
      hint = 'Record another job with ops_enqueue(job_type, payload).';
  end if;
  if new.fence <> old.fence then
    raise exception 'the fence of job % only grows, by claims', old.id using
      errcode = 'check_violation', constraint = 'ops_jobs_fence_grows',
      hint = 'Leave fence alone: each claim takes the next number by itself.';
  end if;
  if new.status = old.status then
    if new.attempt <> old.attempt or new.lost_count <> old.lost_count then
      raise exception 'attempt and lost_count of job % count what happened', old.id using
        errcode = 'check_violation', constraint = 'ops_jobs_counters',
        hint = format('Give it a fresh budget with ops_retry(%L) once it has failed, or raise max_attempts.', old.id);
    end if;
    -- Depth 2: the event table's own trigger numbers an event.
    if new.event_seq <> old.event_seq and pg_trigger_depth() < 2 then
      raise exception 'event_seq of job % is kept by the database', old.id using
        errcode = 'check_violation', constraint = 'ops_jobs_event_seq';
    end if;
    return new;
  end if;
  -- A release takes the attempt back, a lost runner is counted; nothing else moves the counters.
  if not (old.status = 'running' and new.status = 'queued' and new.attempt = old.attempt - 1) then
    new.attempt := old.attempt;
  end if;
  if not (old.status = 'running' and new.lost_count = old.lost_count + 1) then
    new.lost_count := old.lost_count;
  end if;

  new.updated_at := instant;
  new.event_seq := old.event_seq + 1
    + (nullif(current_setting('ops.cause', true), '') is not null)::int
    + (new.status = 'failed' and new.dead_lettered_at is not null and old.dead_lettered_at is null)::int;

  if new.status = 'running' then
    new.attempt := old.attempt + 1;
    new.fence := greatest(nextval('ops_fence'), old.fence + 1);
    new.runner_id := coalesce(new.runner_id, ops_actor());
    new.lease_expires_at := coalesce(new.lease_expires_at, instant + interval '30 seconds');
    new.heartbeat_at := instant;
    new.started_at := instant;
    new.finished_at := null;
    new.progress := null;
    new.abort_requested_at := null;
    return new;
  end if;

  new.lease_expires_at := null;
  new.held_at := null;
  -- Whoever takes a job from its runner also takes its fence away: the runner's late writes then name an old one.
  if old.status = 'running' and ops_actor() <> 'runner:' || old.runner_id then
    new.fence := greatest(nextval('ops_fence'), old.fence + 1);
  end if;
  if new.status in ('succeeded', 'failed', 'aborted') then
    new.finished_at := instant;
    if new.status = 'succeeded' then
      new.error := null;
    end if;
    return new;
  end if;

  -- queued again, or waiting
  new.runner_id := null;
  new.boot_id := null;
  new.heartbeat_at := null;
  new.finished_at := null;
  new.dead_lettered_at := null;
  new.abort_requested_at := null;
  new.held_at := case when new.status = 'waiting' and current_setting('ops.cause', true) = 'lease_expired' then instant end;
  if old.status in ('failed', 'aborted') then
    new.attempt := 0;
    new.lost_count := 0;
    new.error := null;
    new.result := null;
    new.progress := null;
    new.expires_at := null;
    new.started_at := null;
    new.run_at := case when new.run_at = old.run_at then instant else new.run_at end;
  end if;
  return new;
end
$$;
comment on function ops_guard_job() is 'Sets what follows from a change of status, and refuses what may never change.';

-- A renewal (lease, heartbeat, progress) changes none of these and never enters the function.
create trigger ops_jobs_guard_update before update on ops_jobs
for each row when (
  old.status is distinct from new.status
  or old.fence is distinct from new.fence
  or old.attempt is distinct from new.attempt
  or old.lost_count is distinct from new.lost_count
  or old.event_seq is distinct from new.event_seq
  or old.id is distinct from new.id
  or old.job_type is distinct from new.job_type
  or old.created_at is distinct from new.created_at
  or old.created_by is distinct from new.created_by
  or old.idempotency_key is distinct from new.idempotency_key
)
execute function ops_guard_job();

create function ops_refuse_values() returns trigger
language plpgsql
as $$
begin
  raise exception 'a value of job % is out of its range', old.id using
    errcode = 'check_violation', constraint = 'ops_jobs_values',
    hint = 'run_at: the years 2000 to 2200; max_attempts: 1 to 1000; timeout_seconds: 1 to 2592000; labels: an object of texts; payload: at most 64 levels.';
end
$$;
comment on function ops_refuse_values() is 'Refuses values that no new job could have either.';

create trigger ops_jobs_guard_values before update of payload, run_at, expires_at, max_attempts, timeout_seconds, labels on ops_jobs
for each row when (
  new.run_at not between '2000-01-01Z' and '2201-01-01Z'
  or new.expires_at not between '2000-01-01Z' and '2301-01-01Z'
  or new.max_attempts not between 1 and 1000
  or new.timeout_seconds not between 1 and 2592000
  or (old.labels is distinct from new.labels and (
    jsonb_typeof(new.labels) <> 'object' or jsonb_path_exists(new.labels, 'strict $.* ? (@.type() != "string")')
  ))
  or (old.payload is distinct from new.payload and not ops_payload_fits(new.payload))
)
execute function ops_refuse_values();

create function ops_refuse_same_status() returns trigger
language plpgsql
as $$
begin
  raise exception 'illegal transition of job %: % to %', old.id, old.status, new.status using
    errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
    hint = ops_what_to_do_instead(old.status, new.status, old.id);
end
$$;
comment on function ops_refuse_same_status() is 'Refuses to set the status that a job has already: there is no such transition.';

create trigger ops_jobs_refuse_same_status before update of status on ops_jobs
for each row when (old.status is not distinct from new.status)
execute function ops_refuse_same_status();

create function ops_record_transitions() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
-- The plan is cached from the first call, which may see one row: a nested loop would then be kept for 500.
set enable_nestloop = off
-- The price that the planner puts on the forbidden loop would call the compiler in, for 300 ms a statement.
set jit = off
as $$
declare
  refused record;
  cause text := nullif(current_setting('ops.cause', true), '');
  reason text := nullif(current_setting('ops.reason', true), '');
begin
  select n.id, o.status as from_status, n.status as to_status into refused
  from new_rows n
  join old_rows o on o.id = n.id
  left join ops_job_transitions t on t.from_status = o.status and t.to_status = n.status
  where n.status <> o.status and t.kind is null
  limit 1;
  if found then
    raise exception 'illegal transition of job %: % to %', refused.id, refused.from_status, refused.to_status using
      errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
      hint = ops_what_to_do_instead(refused.from_status, refused.to_status, refused.id);
  end if;

  insert into ops_job_events (job_id, seq, at, kind, attempt, runner_id, actor, data)
  select
    c.id, c.before_seq + k.ordinal, c.updated_at, k.kind, c.attempt, c.runner_id, ops_actor(),
    jsonb_strip_nulls(jsonb_build_object(
      'job_type', c.job_type, 'queue', c.queue, 'attempt', c.attempt, 'max_attempts', c.max_attempts,
      'run_at', c.run_at, 'fence', c.fence, 'waited_ms', c.waited_ms, 'ran_ms', c.ran_ms, 'error', c.error, 'reason', reason
    ))
  from (
    select
      n.id, n.job_type, n.queue, n.max_attempts, n.updated_at,
      o.event_seq as before_seq,
      -- a released attempt is not counted any more, but its event belongs to it
      case when o.status = 'running' then o.attempt else n.attempt end as attempt,
      coalesce(n.runner_id, o.runner_id) as runner_id,
      case when n.status = 'queued' then n.run_at end as run_at,
      case when n.status = 'running' then n.fence end as fence,
      case when n.status = 'running'
        then greatest(0, extract(epoch from n.started_at - greatest(n.run_at, n.created_at)) * 1000)::bigint end as waited_ms,
      case when o.status = 'running'
        then greatest(0, extract(epoch from n.updated_at - o.started_at) * 1000)::bigint end as ran_ms,
      case when n.status = 'failed' or n.held_at is not null or (o.status = 'running' and n.status = 'queued')
        then n.error end as error,
      array_remove(array[
        cause,
        case when o.status = 'running' and n.status = 'queued' and n.attempt < o.attempt then 'released'
          when n.held_at is not null then 'held' else t.kind end,
        case when n.status = 'failed' and n.dead_lettered_at is not null and o.dead_lettered_at is null then 'dead_lettered' end
      ], null) as kinds
    from new_rows n
    join old_rows o on o.id = n.id
    join ops_job_transitions t on t.from_status = o.status and t.to_status = n.status
  ) c
  cross join lateral unnest(c.kinds) with ordinality as k (kind, ordinal);
  return null;
end
$$;
comment on function ops_record_transitions() is 'Refuses illegal transitions and writes the events of legal ones, for all rows of a statement at once.';

create trigger ops_jobs_record_update after update on ops_jobs
referencing old table as old_rows new table as new_rows
for each statement execute function ops_record_transitions();

create function ops_append_event() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  if new.kind in ('queued', 'lease_expired', 'released', 'dead_lettered', 'held')
    or exists (select from ops_job_transitions t where t.kind = new.kind)
  then
    raise exception 'event kind % is written by the database when the status changes', new.kind using
      errcode = 'check_violation', constraint = 'ops_job_events_written_by_transition',
      hint = 'Change the job with ops_abort(id) or ops_retry(id); its event follows.';
  end if;
  update ops_jobs j set event_seq = j.event_seq + 1
  where j.id = new.job_id
  returning j.event_seq, coalesce(new.attempt, j.attempt) into new.seq, new.attempt;
  if not found then
    raise exception 'no job %', new.job_id using errcode = 'no_data_found';
  end if;
  new.at := clock_timestamp();
  return new;
end
$$;
comment on function ops_append_event() is 'Numbers an event that is not a transition (progress, a note) under its job''s row lock.';

-- Depth 0: a statement of a client. The triggers above number their own rows; whoever else gives no number gets one.
create trigger ops_job_events_append before insert on ops_job_events
for each row when (pg_trigger_depth() = 0 or new.seq is null)
execute function ops_append_event();

create function ops_refuse_change() returns trigger
language plpgsql
as $$
begin
  raise exception '% on % is refused: history is append-only', tg_op, tg_table_name using
    errcode = 'check_violation', constraint = tg_table_name || '_append_only',
    hint = 'Stop a job with ops_abort(id); finished jobs leave by retention only.';
end
$$;
comment on function ops_refuse_change() is 'Refuses to change or remove what happened.';

create trigger ops_job_events_append_only before update or delete on ops_job_events
for each row execute function ops_refuse_change();
create trigger ops_job_events_no_truncate before truncate on ops_job_events
for each statement execute function ops_refuse_change();
create trigger ops_jobs_no_delete before delete on ops_jobs
for each row execute function ops_refuse_change();
create trigger ops_jobs_no_truncate before truncate on ops_jobs
for each statement execute function ops_refuse_change();
create trigger ops_job_transitions_no_truncate before truncate on ops_job_transitions
for each statement execute function ops_refuse_change();
create trigger ops_job_transitions_fixed before insert or update or delete on ops_job_transitions
for each statement execute function ops_refuse_change();

-- Places for job types with a limit over the fleet.

create table ops_slots (
  job_type text not null,
  slot_no int not null,
  job_id uuid,
  fence bigint,
  constraint ops_slots_pkey primary key (job_type, slot_no),
  constraint ops_slots_whole check ((job_id is null) = (fence is null))
) with (fillfactor = 50);
comment on table ops_slots is 'The places of job types with a limit over the fleet, one row each; a job holds one exactly while it runs. Kept by the database.';
comment on column ops_slots.job_type is 'The job type.';
comment on column ops_slots.slot_no is 'The place: 1 up to the type''s limit. Runners add what is missing.';
comment on column ops_slots.job_id is 'The job that holds it; null: free.';
comment on column ops_slots.fence is 'The fence of that job''s claim.';

create function ops_keep_slot() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  if old.status <> 'running' and new.status = 'running' then
    update ops_slots s set job_id = new.id, fence = new.fence
    where s.job_type = new.job_type and s.slot_no = new.slot_no and s.job_id is null;
    if not found then
      raise exception 'place % of job type % is not free', new.slot_no, new.job_type using
        errcode = 'check_violation', constraint = 'ops_slots_free';
    end if;
    return new;
  end if;
  if old.status = 'running' and new.status <> 'running' then
    update ops_slots s set job_id = null, fence = null
    where s.job_type = old.job_type and s.slot_no = old.slot_no and s.job_id = old.id;
    new.slot_no := null;
    return new;
  end if;
  raise exception 'slot_no of job % is kept by the database', old.id using
    errcode = 'check_violation', constraint = 'ops_jobs_slot_no';
end
$$;
comment on function ops_keep_slot() is 'Takes the place of a job with one when it begins to run, and frees it when it stops, in the same transaction.';

-- A job of a type without a limit never enters the function, nor does a renewal. It fires after ops_jobs_guard_update,
-- which gives the fence.
create trigger ops_jobs_keep_slot before update on ops_jobs
for each row when (
  old.slot_no is distinct from new.slot_no
  or (old.slot_no is not null and old.status is distinct from new.status)
)
execute function ops_keep_slot();
