-- Back to the guard and the recorder of 0001, word for word.

set local statement_timeout = '15min';

drop trigger ops_jobs_record_update on ops_jobs;
drop trigger ops_jobs_order_update on ops_jobs;
drop trigger ops_jobs_order_insert on ops_jobs;
drop trigger ops_jobs_guard_update on ops_jobs;
drop function ops_seal(text);
drop function ops_event_hashes(uuid, int, int, bytea);
drop function ops_event_hash(bytea, ops_job_events);
drop function ops_note_sweep(text);
drop table ops_seals, ops_sweeps;
drop function ops_record_transitions();
drop function ops_guard_job();
drop function ops_order_job();
drop function ops_transition_kind(text, text);
drop index ops_jobs_scheduled, ops_jobs_claims;
comment on index ops_jobs_due is 'Claims: the due jobs in claiming order.';
alter table ops_jobs
  drop column released_count,
  drop column claim_order,
  drop column left_runner_id,
  drop column moved;

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
