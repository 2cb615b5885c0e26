-- Lost jobs that are held for a person, places for job types with a limit over the fleet, and what the last trigger came to.
--
-- A job that was already running when this is applied holds no place: a type's limit may be exceeded by such jobs until they
-- have ended.

alter table ops_jobs
  add column on_lost text not null default 'retry',
  add column held_at timestamptz,
  add column slot_no int,
  add column last_trigger_at timestamptz,
  add column last_trigger_outcome text,
  add constraint ops_jobs_slot_only_running check (slot_no is null or status = 'running');
comment on column ops_jobs.on_lost is 'What becomes of it when its runner is lost, by the job type at its newest claim: retry, or hold (it then waits for ops_resume).';
comment on column ops_jobs.held_at is 'Since when it waits because its runner was lost and its type holds lost jobs; set exactly then.';
comment on column ops_jobs.slot_no is 'The place of its type that it holds in ops_slots while it runs; null where the type has no limit.';
comment on column ops_jobs.last_trigger_at is 'When the control plane last asked a runner to take it.';
comment on column ops_jobs.last_trigger_outcome is 'What came of that: accepted, deferred, not_queued, refused, unreachable, too_slow, or strange and the status.';

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

create or replace function ops_guard_job() returns trigger
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
  if new.fence < old.fence then
    raise exception 'the fence of job % only grows', old.id using
      errcode = 'check_violation', constraint = 'ops_jobs_fence_grows',
      hint = 'Leave fence alone: each claim takes the next number by itself.';
  end if;
  if new.status = old.status then
    -- Depth 2: the event table's own trigger numbers an event.
    if new.event_seq <> old.event_seq and pg_trigger_depth() < 2 then
      raise exception 'event_seq of job % is kept by the database', old.id using
        errcode = 'check_violation', constraint = 'ops_jobs_event_seq';
    end if;
    return new;
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

create or replace function ops_record_transitions() returns trigger
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

create function ops_resume(id uuid, reason text default null) returns text
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
