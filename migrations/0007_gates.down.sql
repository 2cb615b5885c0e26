-- Back to jobs of one step: the functions of 0001, 0002 and 0004, word for word.

set local statement_timeout = '15min';

-- Without their stages they would be run as jobs of one step, past their gates.
do $$
begin
  if exists (select from ops_jobs j where j.stage_no is not null and j.status in ('queued', 'running', 'waiting')) then
    raise exception 'jobs with stages are under way' using
      hint = 'Let them end, or abort them: select ops_abort(id) from ops_jobs where stage_no is not null and status in (''queued'', ''running'', ''waiting'').';
  end if;
end
$$;

drop trigger ops_jobs_forget_stages on ops_jobs;
drop trigger ops_jobs_follow_stages on ops_jobs;
drop trigger ops_jobs_advance on ops_jobs;
drop trigger ops_jobs_begin_stages on ops_jobs;
drop view ops_open_gates;
create or replace view ops_artifacts as
select
  f.job_id, f.name, f.stage, f.size, f.content_type, f.sha256, f.crc32, f.attempt, f.object, f.created_at, f.id
from ops_files f
join ops_jobs j on j.id = f.job_id and j.fence = f.fence and j.status <> 'running'
where f.kind = 'artifact' and f.sha256 is not null;
comment on view ops_artifacts is 'What the newest attempt of each job left, once it has ended.';
drop function ops_reject(uuid, text, text, jsonb);
drop function ops_approve(uuid, text, text, jsonb);
drop function ops_refused_decision(text, uuid, text);
drop function ops_sweep_gates(text);
drop function ops_decide(uuid, text, text, text, int, text, jsonb, jsonb);
drop function ops_settle_gate(uuid, int, int);
drop function ops_retry(uuid, text, boolean);
drop function ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text, jsonb);
drop function ops_record_stages(uuid, text, jsonb, int, int);
drop function ops_forget_stages();
drop function ops_follow_stages();
drop function ops_advance_job();
drop function ops_begin_stages();
drop function ops_open_gate(ops_jobs, ops_job_stages);

create or replace function ops_guard_job() returns trigger
language plpgsql
as $$
declare
  instant timestamptz;
  cause text;
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
  if cause is not null then
    new.moved := cause || ' ' || new.moved;
  end if;
  return new;
end
$$;

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
  where n.moved in ('running', 'succeeded') and why is null
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
    ))
  from (
    select
      n.id, n.event_seq, n.updated_at, n.job_type, n.queue, n.max_attempts, n.status, n.run_at, n.created_at, n.fence,
      n.started_at, n.held_at, n.error,
      -- a released attempt is not counted any more, but its event belongs to it
      n.attempt + (n.moved like '%released')::int as attempt,
      coalesce(n.runner_id, n.left_runner_id) as runner_id,
      string_to_array(n.moved, ' ') as kinds,
      case
        when n.status in ('queued', 'waiting') then n.moved !~ '(resumed|replayed)$'
        else n.status <> 'running' and n.heartbeat_at is not null
      end as ran
    from new_rows n
    where n.moved is not null and not (n.moved in ('running', 'succeeded') and why is null)
  ) m
  cross join lateral unnest(m.kinds) with ordinality as k (kind, ordinal);
  return null;
end
$$;

create or replace function ops_keep_slot() returns trigger
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

create or replace function ops_append_event() returns trigger
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

create function ops_enqueue(
  job_type text,
  payload jsonb default '{}',
  queue text default 'default',
  priority int default 0,
  run_at timestamptz default null,
  ttl_seconds int default null,
  max_attempts int default null,
  timeout_seconds int default null,
  labels jsonb default '{}',
  idempotency_key text default null
) returns uuid
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  job uuid;
  asked bytea;
  known bytea;
begin
  if ops_enqueue.priority not between -32768 and 32767 then
    raise exception 'priority is -32768 to 32767' using errcode = 'invalid_parameter_value';
  end if;
  if ops_enqueue.ttl_seconds not between 1 and 31536000 then
    raise exception 'ttl_seconds is 1 to 31536000 (a year)' using errcode = 'invalid_parameter_value';
  end if;
  if ops_enqueue.idempotency_key is not null then
    asked := ops_request_hash(
      ops_enqueue.job_type, ops_enqueue.payload, ops_enqueue.queue, ops_enqueue.priority, ops_enqueue.run_at,
      ops_enqueue.ttl_seconds, ops_enqueue.max_attempts, ops_enqueue.timeout_seconds, ops_enqueue.labels
    );
  end if;
  insert into ops_jobs (
    job_type, payload, queue, priority, run_at, expires_at, max_attempts, max_attempts_by_type, timeout_seconds,
    labels, idempotency_key, request_hash
  ) values (
    ops_enqueue.job_type, coalesce(ops_enqueue.payload, '{}'), coalesce(ops_enqueue.queue, 'default'),
    coalesce(ops_enqueue.priority, 0), coalesce(ops_enqueue.run_at, now()),
    clock_timestamp() + make_interval(secs => ops_enqueue.ttl_seconds),
    coalesce(ops_enqueue.max_attempts, 1), ops_enqueue.max_attempts is null, ops_enqueue.timeout_seconds,
    coalesce(ops_enqueue.labels, '{}'), ops_enqueue.idempotency_key, asked
  )
  on conflict (idempotency_key) where idempotency_key is not null do nothing
  returning id into job;
  if job is null then
    select j.id, j.request_hash into job, known from ops_jobs j where j.idempotency_key = ops_enqueue.idempotency_key;
    if known is distinct from asked then
      raise exception 'this idempotency key stands for another request: job %', job using
        errcode = 'unique_violation', constraint = 'ops_jobs_idempotency_key',
        hint = 'Use a new key for a new request.';
    end if;
  end if;
  return job;
end
$$;
comment on function ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text) is
  'Records a job in the caller''s own transaction and gives its id: select ops_enqueue(''metrics_refresh'', priority => 5). It exists when the transaction commits.';

create function ops_retry(id uuid, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  found_status text;
begin
  select j.status into found_status from ops_jobs j where j.id = ops_retry.id for update;
  if found_status is null then
    raise exception 'no job %', ops_retry.id using errcode = 'no_data_found';
  elsif found_status in ('failed', 'aborted') then
    perform set_config('ops.reason', coalesce(ops_retry.reason, ''), true);
    update ops_jobs j set status = 'queued' where j.id = ops_retry.id;
    perform set_config('ops.reason', '', true);
    return 'queued';
  end if;
  raise exception 'job % is %: only failed and aborted jobs are retried', ops_retry.id, found_status using
    errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
    hint = case when found_status = 'succeeded' then 'Record a new one with ops_enqueue(job_type, payload).'
      else format('It is not over yet; stop it with ops_abort(%L).', ops_retry.id) end;
end
$$;
comment on function ops_retry(uuid, text) is 'Queues a failed or aborted job again, with a fresh attempt budget.';

create or replace function ops_resume(id uuid, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  found_job ops_jobs;
begin
  select * into found_job from ops_jobs j where j.id = ops_resume.id for update;
  if found_job.id is null then
    raise exception 'no job %', ops_resume.id using errcode = 'no_data_found';
  elsif found_job.status = 'waiting' and found_job.held_at is not null then
    perform set_config('ops.reason', coalesce(ops_resume.reason, ''), true);
    -- The person asks for another attempt, so there is one.
    update ops_jobs j set status = 'queued', max_attempts = greatest(j.max_attempts, j.attempt + 1)
    where j.id = ops_resume.id;
    perform set_config('ops.reason', '', true);
    return 'queued';
  end if;
  raise exception 'job % is %: only held jobs are resumed', ops_resume.id, found_job.status using
    errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
    hint = case when found_job.status = 'waiting' then 'It waits for something else than a lost runner.'
      when found_job.status in ('failed', 'aborted') then format('Queue it again with ops_retry(%L).', ops_resume.id)
      else 'There is nothing to resume.' end;
end
$$;
comment on function ops_resume(uuid, text) is
  'Queues a job again that is held because its runner was lost; it has one more attempt, if none was left.';

drop function ops_stage_at_work(uuid, int);
drop function ops_stage_data(uuid, int, text, text[]);
drop table ops_gate_rules, ops_gate_approvals, ops_gates, ops_job_stages;
drop function ops_tell_approval();
drop function ops_gate_decided();
drop function ops_guard_gate();
drop function ops_guard_stage();
drop function ops_gate_fits(jsonb);
alter table ops_jobs drop column stage_type, drop column stage_no;
