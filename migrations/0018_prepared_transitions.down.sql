-- Claims and finishes of the release that prepares its transitions are refused by the older guard ("the fence only grows, by
-- claims"): stop its runners first.

drop trigger ops_jobs_guard_update on ops_jobs;

create or replace function ops_guard_job() returns trigger
language plpgsql
as $$
declare
  instant timestamptz;
  cause text;
  -- What ops_advance_job made of it: the kinds of the events of a stage.
  staged text := case when new.stage_no is not null and new.status <> old.status then new.moved end;
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
    if new.attempt <> old.attempt or new.lost_count <> old.lost_count or new.released_count <> old.released_count then
      raise exception 'attempt, lost_count and released_count of job % count what happened', old.id using
        errcode = 'check_violation', constraint = 'ops_jobs_counters',
        hint = format('Give it a fresh budget with ops_retry(%L) once it has failed, or raise max_attempts.', old.id);
    end if;
    -- Depth 2: the event table's own trigger numbers an event.
    if new.event_seq <> old.event_seq and pg_trigger_depth() < 2 then
      raise exception 'event_seq of job % is kept by the database', old.id using
        errcode = 'check_violation', constraint = 'ops_jobs_event_seq';
    end if;
    -- Nothing moves here: what the last transition left for the recorder is spent.
    new.moved := null;
    new.left_runner_id := null;
    return new;
  end if;

  new.moved := ops_transition_kind(old.status, new.status);
  if new.moved is null then
    raise exception 'illegal transition of job %: % to %', old.id, old.status, new.status using
      errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
      hint = ops_what_to_do_instead(old.status, new.status, old.id);
  end if;
  instant := clock_timestamp();
  cause := nullif(current_setting('ops.cause', true), '');
  new.updated_at := instant;
  new.event_seq := old.event_seq + 1 + (cause is not null)::int;
  new.left_runner_id := null;
  new.released_count := old.released_count;

  if new.status = 'running' then
    new.attempt := old.attempt + 1;
    new.lost_count := old.lost_count;
    new.fence := greatest(nextval('ops_fence'), old.fence + 1);
    new.runner_id := coalesce(new.runner_id, ops_actor());
    new.lease_expires_at := coalesce(new.lease_expires_at, instant + interval '30 seconds');
    new.heartbeat_at := instant;
    new.started_at := instant;
    new.finished_at := null;
    new.progress := null;
    new.abort_requested_at := null;
    if cause is not null then
      new.moved := cause || ' ' || new.moved;
    end if;
    return new;
  end if;

  -- A release takes the attempt back, a lost runner is counted; nothing else moves the counters.
  if old.status = 'running' then
    if new.status = 'queued' and new.attempt = old.attempt - 1 then
      new.moved := 'released';
      new.released_count := old.released_count + 1;
    else
      new.attempt := old.attempt;
    end if;
    if new.lost_count <> old.lost_count + 1 then
      new.lost_count := old.lost_count;
    end if;
    -- Whoever takes a job from its runner also takes its fence away: the runner's late writes then name an old one.
    if ops_actor() <> 'runner:' || old.runner_id then
      new.fence := greatest(nextval('ops_fence'), old.fence + 1);
    end if;
  else
    new.attempt := old.attempt;
    new.lost_count := old.lost_count;
    -- Set exactly when a runner ended it: the recorder goes by it.
    new.heartbeat_at := null;
  end if;
  new.lease_expires_at := null;
  new.held_at := null;

  if new.status in ('succeeded', 'failed', 'aborted') then
    new.finished_at := instant;
    if new.status = 'succeeded' then
      new.error := null;
    elsif new.status = 'failed' and new.dead_lettered_at is not null and old.dead_lettered_at is null then
      new.moved := 'failed dead_lettered';
      new.event_seq := new.event_seq + 1;
    end if;
  else
    -- queued again, or waiting
    new.left_runner_id := old.runner_id;
    new.runner_id := null;
    new.boot_id := null;
    new.heartbeat_at := null;
    new.finished_at := null;
    new.dead_lettered_at := null;
    new.abort_requested_at := null;
    if new.status = 'waiting' and cause = 'lease_expired' then
      new.held_at := instant;
      new.moved := 'held';
    end if;
    if old.status in ('failed', 'aborted') then
      new.attempt := 0;
      new.lost_count := 0;
      new.released_count := 0;
      new.error := null;
      new.result := null;
      new.progress := null;
      new.expires_at := null;
      new.started_at := null;
      new.run_at := case when new.run_at = old.run_at then instant else new.run_at end;
    end if;
  end if;
  if staged is not null then
    new.moved := staged;
    new.event_seq := old.event_seq + (cause is not null)::int + cardinality(string_to_array(staged, ' '));
    if staged in ('stage_succeeded stage_queued', 'gate_approved') then
      new.lost_count := 0;
      new.released_count := 0;
    end if;
  end if;
  if cause is not null then
    new.moved := cause || ' ' || new.moved;
  end if;
  return new;
end
$$;

-- A renewal (lease, heartbeat, progress) changes none of these and never enters the function, but for the first after the
-- claim, which spends `moved`.
create trigger ops_jobs_guard_update before update on ops_jobs
for each row when (
  old.status is distinct from new.status
  or new.moved is not null
  or old.fence is distinct from new.fence
  or old.attempt is distinct from new.attempt
  or old.lost_count is distinct from new.lost_count
  or old.released_count is distinct from new.released_count
  or old.event_seq is distinct from new.event_seq
  or old.id is distinct from new.id
  or old.job_type is distinct from new.job_type
  or old.created_at is distinct from new.created_at
  or old.created_by is distinct from new.created_by
  or old.idempotency_key is distinct from new.idempotency_key
)
execute function ops_guard_job();

create or replace function ops_record_transitions() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  who text := ops_actor();
  why text := nullif(current_setting('ops.reason', true), '');
begin
  insert into ops_job_events (job_id, seq, at, kind, attempt, runner_id, actor, data)
  -- The two that a busy fleet lives on, without anything that they do not need.
  select
    n.id, n.event_seq, n.updated_at, n.moved, n.attempt, n.runner_id, who,
    case n.moved
      when 'running' then jsonb_build_object(
        'job_type', n.job_type, 'queue', n.queue, 'attempt', n.attempt, 'max_attempts', n.max_attempts, 'fence', n.fence,
        'waited_ms', greatest(0, extract(epoch from n.started_at - greatest(n.run_at, n.created_at)) * 1000)::bigint
      )
      else jsonb_build_object(
        'job_type', n.job_type, 'queue', n.queue, 'attempt', n.attempt, 'max_attempts', n.max_attempts,
        'ran_ms', greatest(0, extract(epoch from n.updated_at - n.started_at) * 1000)::bigint
      )
    end
  from new_rows n
  where n.moved in ('running', 'succeeded') and why is null and n.stage_no is null
  union all
  select
    m.id, m.event_seq - cardinality(m.kinds) + k.ordinal::int, m.updated_at, k.kind, m.attempt, m.runner_id, who,
    jsonb_strip_nulls(jsonb_build_object(
      'job_type', m.job_type, 'queue', m.queue, 'attempt', m.attempt, 'max_attempts', m.max_attempts,
      'run_at', case when m.status = 'queued' then m.run_at end,
      'fence', case when m.status = 'running' then m.fence end,
      'waited_ms', case when m.status = 'running'
        then greatest(0, extract(epoch from m.started_at - greatest(m.run_at, m.created_at)) * 1000)::bigint end,
      'ran_ms', case when m.ran then greatest(0, extract(epoch from m.updated_at - m.started_at) * 1000)::bigint end,
      'error', case when m.status = 'failed' or m.held_at is not null or (m.ran and m.status = 'queued') then m.error end,
      'reason', why
    )) || case when m.stage_no is null then '{}' else ops_stage_data(m.id, m.stage_no, k.kind, m.kinds) end
  from (
    select
      n.id, n.event_seq, n.updated_at, n.job_type, n.queue, n.max_attempts, n.status, n.run_at, n.created_at, n.fence,
      n.started_at, n.held_at, n.error, n.stage_no,
      -- a released attempt is not counted any more, but its event belongs to it
      n.attempt + (n.moved like '%released')::int as attempt,
      coalesce(n.runner_id, n.left_runner_id) as runner_id,
      string_to_array(n.moved, ' ') as kinds,
      case
        when n.status in ('queued', 'waiting') then n.moved !~ '(resumed|replayed|gate_approved)$'
        else n.status <> 'running' and n.heartbeat_at is not null
      end as ran
    from new_rows n
    where n.moved is not null and not (n.moved in ('running', 'succeeded') and why is null and n.stage_no is null)
  ) m
  cross join lateral unnest(m.kinds) with ordinality as k (kind, ordinal);
  return null;
end
$$;

create or replace function ops_uuidv7() returns uuid
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

create or replace function ops_record_new_jobs() returns trigger
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

drop trigger ops_jobs_guard_insert on ops_jobs;
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

create or replace function ops_guard_new_job() returns trigger
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

create or replace function ops_refuse_values() returns trigger
language plpgsql
as $$
begin
  raise exception 'a value of job % is out of its range', old.id using
    errcode = 'check_violation', constraint = 'ops_jobs_values',
    hint = 'run_at: the years 2000 to 2200; max_attempts: 1 to 1000; timeout_seconds: 1 to 2592000; labels: an object of texts; payload: at most 64 levels.';
end
$$;

drop trigger ops_jobs_guard_values on ops_jobs;
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
