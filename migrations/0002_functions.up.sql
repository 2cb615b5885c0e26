-- What psql and other programs call: enqueue inside the caller's own transaction, abort, retry; and the views to look at.
-- They run with the rights of the schema's owner, so that a role needs no UPDATE on the table.

create function ops_request_hash(
  job_type text, payload jsonb, queue text, priority int, run_at timestamptz, ttl_seconds int,
  max_attempts int, timeout_seconds int, labels jsonb
) returns bytea
language sql stable parallel safe
as $$
  select sha256(convert_to(
    jsonb_build_array(
      job_type, payload, queue, priority, extract(epoch from run_at), ttl_seconds, max_attempts, timeout_seconds, labels
    )::text,
    'UTF8'
  ))
$$;
comment on function ops_request_hash(text, jsonb, text, int, timestamptz, int, int, int, jsonb) is
  'What an idempotency key stands for: the same key with another hash is refused. The order of keys and white space do not matter; 1 and 1.0 differ.';

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

create function ops_abort(id uuid, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  found_status text;
begin
  select j.status into found_status from ops_jobs j where j.id = ops_abort.id for update;
  if found_status is null then
    raise exception 'no job %', ops_abort.id using errcode = 'no_data_found';
  elsif found_status in ('queued', 'waiting') then
    perform set_config('ops.cause', 'abort_requested', true), set_config('ops.reason', coalesce(ops_abort.reason, ''), true);
    update ops_jobs j set status = 'aborted', abort_requested_at = clock_timestamp() where j.id = ops_abort.id;
    perform set_config('ops.cause', '', true), set_config('ops.reason', '', true);
    return 'aborted';
  elsif found_status = 'running' then
    update ops_jobs j set abort_requested_at = clock_timestamp()
    where j.id = ops_abort.id and j.abort_requested_at is null;
    if found then
      insert into ops_job_events (job_id, kind, runner_id, data)
      select j.id, 'abort_requested', j.runner_id, jsonb_strip_nulls(jsonb_build_object('reason', ops_abort.reason))
      from ops_jobs j where j.id = ops_abort.id;
    end if;
    return 'abort_requested';
  end if;
  raise exception 'job % has ended already: it is %', ops_abort.id, found_status using
    errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
    hint = 'There is nothing to abort.';
end
$$;
comment on function ops_abort(uuid, text) is
  'Stops a job: a queued or waiting one at once (aborted); a running one is stopped by its runner at its next renewal (abort_requested).';

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

create view ops_queue_depth as
select
  j.queue,
  j.status,
  count(*) as jobs,
  count(*) filter (where j.status = 'queued' and j.run_at <= now()) as due,
  min(j.run_at) filter (where j.status = 'queued' and j.run_at <= now()) as oldest_due_at
from ops_jobs j
where j.status in ('queued', 'running', 'waiting')
group by j.queue, j.status;
comment on view ops_queue_depth is 'How many jobs are not over, by queue and status.';
comment on column ops_queue_depth.queue is 'The queue.';
comment on column ops_queue_depth.status is 'queued, running or waiting.';
comment on column ops_queue_depth.jobs is 'How many.';
comment on column ops_queue_depth.due is 'How many of the queued ones could run now.';
comment on column ops_queue_depth.oldest_due_at is 'Since when the oldest of these has been due.';

create view ops_stalled_jobs as
select
  j.id, j.job_type, j.queue, j.attempt, j.max_attempts, j.runner_id, j.started_at, j.heartbeat_at, j.lease_expires_at,
  clock_timestamp() - j.heartbeat_at as silent_for
from ops_jobs j
where j.status = 'running' and j.heartbeat_at < clock_timestamp() - interval '20 seconds';
comment on view ops_stalled_jobs is 'Running jobs of which nothing was heard for 20 seconds (the default of STALL_THRESHOLD_SECONDS); most become lease_expired.';
comment on column ops_stalled_jobs.id is 'The job.';
comment on column ops_stalled_jobs.job_type is 'What it does.';
comment on column ops_stalled_jobs.queue is 'Its queue.';
comment on column ops_stalled_jobs.attempt is 'Which attempt is running.';
comment on column ops_stalled_jobs.max_attempts is 'Of how many.';
comment on column ops_stalled_jobs.runner_id is 'The runner that holds it.';
comment on column ops_stalled_jobs.started_at is 'When the attempt began.';
comment on column ops_stalled_jobs.heartbeat_at is 'When the runner was last heard of.';
comment on column ops_stalled_jobs.lease_expires_at is 'When it may be taken from the runner.';
comment on column ops_stalled_jobs.silent_for is 'How long nothing was heard.';

create view ops_dead_letters as
select
  j.id, j.job_type, j.queue, j.error, j.attempt, j.max_attempts, j.runner_id, j.dead_lettered_at, j.created_at, j.created_by
from ops_jobs j
where j.status = 'failed' and j.dead_lettered_at is not null;
comment on view ops_dead_letters is 'Failed jobs whose attempts are used up; queue one again with ops_retry(id).';
comment on column ops_dead_letters.id is 'The job.';
comment on column ops_dead_letters.job_type is 'What it does.';
comment on column ops_dead_letters.queue is 'Its queue.';
comment on column ops_dead_letters.error is 'Why the last attempt failed.';
comment on column ops_dead_letters.attempt is 'How many attempts it had.';
comment on column ops_dead_letters.max_attempts is 'How many it was allowed.';
comment on column ops_dead_letters.runner_id is 'The runner of the last one.';
comment on column ops_dead_letters.dead_lettered_at is 'When it was given up.';
comment on column ops_dead_letters.created_at is 'When it was recorded.';
comment on column ops_dead_letters.created_by is 'Who recorded it.';
