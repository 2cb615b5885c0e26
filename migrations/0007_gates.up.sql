-- Stages that run in order, and gates between them that wait for a person.
--
-- A job with stages stays one row of ops_jobs and is claimed like any other; stage_no says which stage is next or at work,
-- stage_type which job type that is. Whoever writes `succeeded` on it, a runner of any release or a person, ends a stage and
-- not the job: ops_advance_job makes of it the next stage (queued), its gate (waiting), or the end (succeeded). A gate is
-- passed only by its row: ops_gates is decided once, and its own trigger moves the job.
-- A job without stages has null in both columns and enters none of the functions here.

set local statement_timeout = '15min';

alter table ops_jobs
  add column stage_no int,
  add column stage_type text;
comment on column ops_jobs.stage_no is 'The stage that is next, or at work: 1, 2, 3 …; one beyond the last when only the end is to be recorded. Null: a job without stages. Kept by the database.';
comment on column ops_jobs.stage_type is 'The job type of that stage, by which it is claimed; null: job_type says it. Kept by the database.';

create function ops_gate_fits(gate jsonb) returns boolean
language sql immutable parallel safe
as $$
  select coalesce(jsonb_typeof(gate) = 'object', true)
    and case when jsonb_typeof(gate) = 'object' then
      not exists (
        select from jsonb_each(gate) as given (name, value)
        where not case
          when value = 'null' then name = any (array[
            'auto_approve_after_seconds', 'expires_after_seconds', 'on_expiry', 'approvals', 'not_requester', 'only_keys'])
          when name in ('auto_approve_after_seconds', 'expires_after_seconds') then
            jsonb_typeof(value) = 'number' and value::text ~ '^[0-9]{1,8}$' and value::int between 0 and 31536000
          when name = 'on_expiry' then value in ('"abort"', '"approve"', '"reject"')
          when name = 'approvals' then jsonb_typeof(value) = 'number' and value::text ~ '^[0-9]{1,2}$' and value::int between 1 and 20
          when name = 'not_requester' then jsonb_typeof(value) = 'boolean'
          when name = 'only_keys' then jsonb_typeof(value) = 'array'
            and not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")')
            and jsonb_array_length(value) between 1 and 100
          else false
        end
      )
    else true end
$$;
comment on function ops_gate_fits(jsonb) is 'Whether this is a gate as a stage may have it: known names, each with a value in its range.';

create table ops_job_stages (
  job_id uuid not null,
  stage_no int not null,
  name text not null,
  job_type text not null,
  payload jsonb,
  gate jsonb,
  max_attempts int,
  timeout_seconds int,
  status text not null default 'pending',
  result jsonb,
  error text,
  attempts int not null default 0,
  first_fence bigint,
  last_fence bigint,
  started_at timestamptz,
  finished_at timestamptz,
  constraint ops_job_stages_pkey primary key (job_id, stage_no),
  constraint ops_job_stages_name_once unique (job_id, name),
  constraint ops_job_stages_names check (name ~ '^[a-z][a-z0-9_]{0,63}$' and job_type ~ '^[a-z][a-z0-9_]{0,63}$'),
  constraint ops_job_stages_number check (stage_no between 1 and 100),
  constraint ops_job_stages_payload_fits check (payload is null or ops_payload_fits(payload)),
  constraint ops_job_stages_gate_fits check (gate is null or ops_gate_fits(gate)),
  constraint ops_job_stages_budget check (max_attempts between 1 and 1000 and timeout_seconds between 1 and 2592000),
  constraint ops_job_stages_status_known check (status in ('pending', 'queued', 'running', 'waiting', 'succeeded', 'failed', 'aborted'))
);
comment on table ops_job_stages is 'The stages of jobs that have any, one row each; written with the job, kept by the database, gone with the job.';
comment on column ops_job_stages.job_id is 'The job.';
comment on column ops_job_stages.stage_no is 'Its place: 1, 2, 3 …';
comment on column ops_job_stages.name is 'Its name, once within the job; matches [a-z][a-z0-9_]{0,63}.';
comment on column ops_job_stages.job_type is 'What is to be done in it; never changes.';
comment on column ops_job_stages.payload is 'What its handler is given; null: the job''s payload. A rejection may patch it.';
comment on column ops_job_stages.gate is 'The gate after it, as it was asked for; null: none.';
comment on column ops_job_stages.max_attempts is 'How many attempts it has; null: the job type decides.';
comment on column ops_job_stages.timeout_seconds is 'An attempt of it is killed after so long, in seconds; null: the job type decides.';
comment on column ops_job_stages.status is 'pending, queued, running, waiting (its runner was lost and its type holds lost jobs), succeeded, failed or aborted.';
comment on column ops_job_stages.result is 'What its handler answered, as patched by an approval.';
comment on column ops_job_stages.error is 'Why its last attempt failed.';
comment on column ops_job_stages.attempts is 'How many times it was claimed since the job was recorded, or since a retry began with it or before it.';
comment on column ops_job_stages.first_fence is 'The fence of its first claim: its log is what ops_job_log has from this fence …';
comment on column ops_job_stages.last_fence is '… to this one, the fence of its newest claim.';
comment on column ops_job_stages.started_at is 'When its newest attempt began.';
comment on column ops_job_stages.finished_at is 'When it ended.';
comment on index ops_job_stages_name_once is 'A stage by its name.';

create table ops_gates (
  job_id uuid not null,
  stage_no int not null,
  revision int not null,
  name text not null,
  state text not null default 'open',
  document jsonb not null,
  document_hash text not null,
  approvals_needed int not null default 1,
  not_requester boolean not null default false,
  only_keys text[],
  opened_at timestamptz not null default clock_timestamp(),
  auto_approve_at timestamptz,
  expires_at timestamptz,
  on_expiry text not null default 'abort',
  decided_by text,
  decided_at timestamptz,
  automatic boolean not null default false,
  reason text,
  patch jsonb,
  patched jsonb,
  constraint ops_gates_pkey primary key (job_id, stage_no, revision),
  constraint ops_gates_state_known check (state in ('open', 'approved', 'rejected', 'expired', 'closed')),
  constraint ops_gates_on_expiry_known check (on_expiry in ('abort', 'approve', 'reject')),
  constraint ops_gates_decided_iff_not_open check ((state = 'open') = (decided_at is null) and (decided_at is null) = (decided_by is null)),
  constraint ops_gates_patched_fits check (patched is null or ops_payload_fits(patched))
);
comment on table ops_gates is 'Gates that were reached, one row each time: what was shown, and the one decision. Decide with ops_approve(id, name) or ops_reject(id, name).';
comment on column ops_gates.job_id is 'The job.';
comment on column ops_gates.stage_no is 'The stage that it comes after.';
comment on column ops_gates.revision is '1, and one more each time that the stage was run again and the gate opened anew.';
comment on column ops_gates.name is 'The stage''s name, which is the gate''s too.';
comment on column ops_gates.state is 'open, approved, rejected, expired (nobody decided, and the job is aborted), or closed (the job ended before a decision).';
comment on column ops_gates.document is 'What is decided about: the stage''s result when the gate opened.';
comment on column ops_gates.document_hash is 'SHA-256 of the document''s text in PostgreSQL''s form, in hex: a decision may name it.';
comment on column ops_gates.approvals_needed is 'So many different keys or people must approve.';
comment on column ops_gates.not_requester is 'Whether the one who recorded the job may not decide.';
comment on column ops_gates.only_keys is 'Only these may decide; null: anyone with a key or a login.';
comment on column ops_gates.opened_at is 'When it opened, by the database''s clock.';
comment on column ops_gates.auto_approve_at is 'Approved by itself at this instant; null: never.';
comment on column ops_gates.expires_at is 'No longer waited for at this instant; null: never.';
comment on column ops_gates.on_expiry is 'What then becomes of it: abort (the job), approve, or reject.';
comment on column ops_gates.decided_by is 'Who decided: a key''s id, a login, or the sweep that found its time run out.';
comment on column ops_gates.decided_at is 'When.';
comment on column ops_gates.automatic is 'Whether time decided and not a person.';
comment on column ops_gates.reason is 'Why, in the words of who decided.';
comment on column ops_gates.patch is 'The JSON Patch that came with the decision.';
comment on column ops_gates.patched is 'What the patch made: of the document when approved, of the stage''s payload when rejected.';
create index ops_gates_due on ops_gates (least(auto_approve_at, expires_at)) where state = 'open';
comment on index ops_gates_due is 'Sweeps: open gates whose time has come; and the list of what waits for a person.';

create table ops_gate_approvals (
  job_id uuid not null,
  stage_no int not null,
  revision int not null,
  actor text not null,
  at timestamptz not null default clock_timestamp(),
  reason text,
  constraint ops_gate_approvals_pkey primary key (job_id, stage_no, revision, actor)
);
comment on table ops_gate_approvals is 'Approvals of gates that need several, one row a key or person.';
comment on column ops_gate_approvals.job_id is 'The job.';
comment on column ops_gate_approvals.stage_no is 'The stage.';
comment on column ops_gate_approvals.revision is 'The gate''s revision.';
comment on column ops_gate_approvals.actor is 'Who approved.';
comment on column ops_gate_approvals.at is 'When.';
comment on column ops_gate_approvals.reason is 'Why.';

create function ops_tell_approval() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  insert into ops_job_events (job_id, kind, actor, data)
  values (
    new.job_id, 'gate_approval', new.actor,
    jsonb_strip_nulls(jsonb_build_object('stage_no', new.stage_no, 'revision', new.revision, 'reason', new.reason))
  );
  return null;
end
$$;
comment on function ops_tell_approval() is 'Each of several approvals is an event of its job.';
create trigger ops_gate_approvals_tell after insert on ops_gate_approvals
for each row execute function ops_tell_approval();

create table ops_gate_rules (
  job_type text not null,
  approvals int not null default 1,
  not_requester boolean not null default false,
  only_keys text[],
  auto_approve boolean not null default false,
  constraint ops_gate_rules_pkey primary key (job_type),
  constraint ops_gate_rules_approvals check (approvals between 1 and 20)
);
comment on table ops_gate_rules is 'What gates of a job type demand at least, whatever their job asks for; yours to fill.';
comment on column ops_gate_rules.job_type is 'The type of the job, or of the stage before the gate.';
comment on column ops_gate_rules.approvals is 'So many different keys or people must approve.';
comment on column ops_gate_rules.not_requester is 'Whether the one who recorded the job may not decide.';
comment on column ops_gate_rules.only_keys is 'Only these may decide; null: anyone.';
comment on column ops_gate_rules.auto_approve is 'Whether time may approve; else auto_approve_after_seconds and on_expiry "approve" are passed over.';

create function ops_guard_stage() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' then
    if exists (select from ops_jobs j where j.id = old.job_id) then
      raise exception 'stages leave with their job only' using
        errcode = 'check_violation', constraint = 'ops_job_stages_stay';
    end if;
    return old;
  end if;
  raise exception 'job_id, stage_no, name, job_type and gate of stage % never change', old.name using
    errcode = 'check_violation', constraint = 'ops_job_stages_immutable',
    hint = 'Record another job with ops_enqueue(job_type, stages => …).';
end
$$;
comment on function ops_guard_stage() is 'Refuses to remove the stages of a job that is there, and to change what they are.';
create trigger ops_job_stages_guard_delete before delete on ops_job_stages
for each row execute function ops_guard_stage();
create trigger ops_job_stages_guard_update before update on ops_job_stages
for each row when (
  old.job_id <> new.job_id or old.stage_no <> new.stage_no or old.name <> new.name or old.job_type <> new.job_type
  or old.gate is distinct from new.gate
)
execute function ops_guard_stage();

create function ops_guard_gate() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' then
    if exists (select from ops_jobs j where j.id = old.job_id) then
      raise exception 'gates leave with their job only' using errcode = 'check_violation', constraint = 'ops_gates_stay';
    end if;
    return old;
  end if;
  if old.state <> 'open' then
    raise exception 'gate % of job % is decided: %', old.name, old.job_id, old.state using
      errcode = 'check_violation', constraint = 'ops_gates_decided_once',
      hint = 'A decision stands. A rejected stage is run again with ops_resume(id); its gate then opens anew.';
  end if;
  if (new.job_id, new.stage_no, new.revision, new.name, new.document, new.document_hash, new.approvals_needed,
      new.not_requester, new.opened_at)
    is distinct from (old.job_id, old.stage_no, old.revision, old.name, old.document, old.document_hash, old.approvals_needed,
      old.not_requester, old.opened_at)
    or new.only_keys is distinct from old.only_keys
  then
    raise exception 'what gate % of job % shows and demands never changes', old.name, old.job_id using
      errcode = 'check_violation', constraint = 'ops_gates_immutable',
      hint = 'Only a decision, and the instants until which it waits, can be written.';
  end if;
  if new.state <> 'open' then
    new.decided_at := clock_timestamp();
    new.decided_by := coalesce(new.decided_by, ops_actor());
  end if;
  return new;
end
$$;
comment on function ops_guard_gate() is 'A gate is decided once, and nothing else about it changes.';
create trigger ops_gates_guard before update or delete on ops_gates
for each row execute function ops_guard_gate();
create trigger ops_gates_no_truncate before truncate on ops_gates
for each statement execute function ops_refuse_change();
create trigger ops_job_stages_no_truncate before truncate on ops_job_stages
for each statement execute function ops_refuse_change();

create function ops_gate_decided() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  perform set_config('ops.reason', coalesce(new.reason, ''), true);
  if new.state = 'approved' then
    if new.patched is not null then
      update ops_job_stages s set result = new.patched where s.job_id = new.job_id and s.stage_no = new.stage_no;
    end if;
    update ops_jobs j set status = 'queued' where j.id = new.job_id and j.stage_no = new.stage_no;
  elsif new.state = 'rejected' then
    if new.patched is not null then
      update ops_job_stages s set payload = new.patched where s.job_id = new.job_id and s.stage_no = new.stage_no;
    end if;
    insert into ops_job_events (job_id, kind, actor, data)
    values (
      new.job_id, 'gate_rejected', new.decided_by,
      jsonb_strip_nulls(jsonb_build_object(
        'stage', new.name, 'revision', new.revision, 'document_hash', new.document_hash, 'automatic', new.automatic,
        'reason', new.reason
      )) || case when new.patch is null then '{}' else jsonb_build_object('patch', new.patch) end
    );
  elsif new.state = 'expired' then
    perform set_config('ops.cause', 'gate_expired', true);
    update ops_jobs j set status = 'aborted' where j.id = new.job_id and j.stage_no = new.stage_no;
    perform set_config('ops.cause', '', true);
  end if;
  perform set_config('ops.reason', '', true);
  return null;
end
$$;
comment on function ops_gate_decided() is 'Moves the job as its gate was decided, in the same transaction, whoever decided it and how.';
create trigger ops_gates_decided after update on ops_gates
for each row when (old.state = 'open' and new.state in ('approved', 'rejected', 'expired'))
execute function ops_gate_decided();

create function ops_open_gate(job ops_jobs, stage ops_job_stages) returns void
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  opened timestamptz := clock_timestamp();
  document jsonb;
  needed int := coalesce((stage.gate ->> 'approvals')::int, 1);
  not_requester boolean := coalesce((stage.gate ->> 'not_requester')::boolean, false);
  keys text[] := case when jsonb_typeof(stage.gate -> 'only_keys') = 'array'
    then array(select jsonb_array_elements_text(stage.gate -> 'only_keys')) end;
  on_expiry text := coalesce(stage.gate ->> 'on_expiry', 'abort');
  by_time boolean := true;
  rule ops_gate_rules;
begin
  -- The stricter of what the job asks for and what its type demands.
  for rule in select * from ops_gate_rules r where r.job_type in (job.job_type, stage.job_type) loop
    needed := greatest(needed, rule.approvals);
    not_requester := not_requester or rule.not_requester;
    by_time := by_time and rule.auto_approve;
    if rule.only_keys is not null then
      keys := case when keys is null then rule.only_keys
        else array(select k from unnest(keys) k where k = any (rule.only_keys)) end;
    end if;
  end loop;
  select s.result into document from ops_job_stages s where s.job_id = stage.job_id and s.stage_no = stage.stage_no;
  insert into ops_gates (
    job_id, stage_no, revision, name, document, document_hash, approvals_needed, not_requester, only_keys, opened_at,
    auto_approve_at, expires_at, on_expiry
  )
  select
    stage.job_id, stage.stage_no,
    coalesce((select max(g.revision) from ops_gates g where g.job_id = stage.job_id and g.stage_no = stage.stage_no), 0) + 1,
    stage.name, document, encode(sha256(convert_to(document::text, 'UTF8')), 'hex'), needed, not_requester, keys, opened,
    case when by_time then opened + make_interval(secs => (stage.gate ->> 'auto_approve_after_seconds')::int) end,
    opened + make_interval(secs => (stage.gate ->> 'expires_after_seconds')::int),
    case when by_time or on_expiry <> 'approve' then on_expiry else 'abort' end;
end
$$;
comment on function ops_open_gate(ops_jobs, ops_job_stages) is 'Opens the gate after a stage that has just succeeded, by the stricter of its own and its type''s rules.';

create function ops_begin_stages() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  select 1, s.job_type, coalesce(s.max_attempts, 1), s.max_attempts is null, s.timeout_seconds
  into new.stage_no, new.stage_type, new.max_attempts, new.max_attempts_by_type, new.timeout_seconds
  from ops_job_stages s
  where s.job_id = new.id and s.stage_no = 1;
  if not found then
    raise exception 'stages are recorded with ops_enqueue(job_type, stages => …)' using
      errcode = 'check_violation', constraint = 'ops_jobs_stages';
  end if;
  update ops_job_stages s set status = 'queued' where s.job_id = new.id and s.stage_no = 1;
  return new;
end
$$;
comment on function ops_begin_stages() is 'A new job with stages begins with the first of them.';
create trigger ops_jobs_begin_stages before insert on ops_jobs
for each row when (new.stage_no is not null or new.stage_type is not null)
execute function ops_begin_stages();

create function ops_advance_job() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  asked int := new.stage_no;
  stage ops_job_stages;
  entered ops_job_stages;
  gate ops_gates;
  enters int;
begin
  if old.stage_no is null then
    raise exception 'stages are given when a job is recorded' using
      errcode = 'check_violation', constraint = 'ops_jobs_stages',
      hint = 'Record another job with ops_enqueue(job_type, stages => …).';
  end if;
  new.stage_no := old.stage_no;
  new.stage_type := old.stage_type;
  if new.status = old.status then
    return new;
  end if;
  new.moved := null;
  if new.status = 'running' then
    -- A runner of a release that knows no stages would run the whole job as one: it gets nothing.
    if ops_actor() like 'runner:%' and current_setting('ops.stages', true) is distinct from 'on' then
      return null;
    end if;
    return new;
  end if;
  -- Not found: every stage is done, and only the end is to be recorded.
  select * into stage from ops_job_stages s where s.job_id = old.id and s.stage_no = old.stage_no;

  if old.status = 'running' and new.status = 'succeeded' then
    if stage.job_id is null then
      new.result := (select s.result from ops_job_stages s where s.job_id = old.id order by s.stage_no desc limit 1);
      return new;
    end if;
    update ops_job_stages s
    set status = 'succeeded', result = coalesce(new.result, 'null'), error = null, finished_at = clock_timestamp()
    where s.job_id = old.id and s.stage_no = old.stage_no;
    if stage.gate is null and not exists (
      select from ops_job_stages s where s.job_id = old.id and s.stage_no = old.stage_no + 1
    ) then
      new.moved := 'stage_succeeded succeeded';
      return new;
    end if;
    new.result := null;
    new.error := null;
    if old.abort_requested_at is not null then
      -- What is done is done; nothing more is begun.
      new.status := 'aborted';
      new.moved := 'stage_succeeded aborted';
      return new;
    end if;
    if stage.gate is not null then
      perform ops_open_gate(old, stage);
      new.status := 'waiting';
      new.moved := 'stage_succeeded gate_opened';
      return new;
    end if;
    new.status := 'queued';
    new.moved := 'stage_succeeded stage_queued';
    enters := old.stage_no + 1;
  elsif old.status = 'running' and new.status = 'waiting' and current_setting('ops.cause', true) is distinct from 'lease_expired' then
    raise exception 'job % waits only for a gate', old.id using
      errcode = 'check_violation', constraint = 'ops_jobs_waits_for_a_gate',
      hint = 'A stage that succeeds opens its gate by itself.';
  elsif old.status = 'waiting' and new.status = 'queued' and old.held_at is null then
    select * into gate from ops_gates g
    where g.job_id = old.id and g.stage_no = old.stage_no
    order by g.revision desc
    limit 1;
    if gate.state = 'approved' then
      new.moved := 'gate_approved';
      enters := old.stage_no + 1;
    elsif gate.state = 'rejected' then
      enters := old.stage_no;
    else
      raise exception 'gate % of job % is open', gate.name, old.id using
        errcode = 'check_violation', constraint = 'ops_jobs_gate_is_open',
        hint = format('Decide it with ops_approve(%L, %L) or ops_reject(%L, %L).', old.id, gate.name, old.id, gate.name);
    end if;
  elsif old.status in ('failed', 'aborted') and new.status = 'queued' then
    enters := case when asked = 1 then 1 else old.stage_no end;
    update ops_job_stages s
    set status = 'pending', result = null, error = null, attempts = 0, first_fence = null, last_fence = null,
      started_at = null, finished_at = null
    where s.job_id = old.id and s.stage_no >= enters;
  elsif new.status = 'failed' and stage.job_id is not null then
    new.error := format('stage %s: %s', stage.name, coalesce(new.error, 'it failed'));
  end if;

  if enters is not null then
    select * into entered from ops_job_stages s where s.job_id = old.id and s.stage_no = enters;
    new.stage_no := enters;
    -- Beyond the last there is nothing to run, and a lost runner is no reason to fail.
    new.stage_type := coalesce(entered.job_type, old.stage_type);
    new.max_attempts_by_type := entered.job_id is not null and entered.max_attempts is null;
    new.max_attempts := least(1000,
      case when old.status in ('failed', 'aborted') then 0 else old.attempt end
      + case when entered.job_id is null then 3 else coalesce(entered.max_attempts, 1) end);
    new.timeout_seconds := entered.timeout_seconds;
    new.run_at := clock_timestamp();
    -- Its time to live is that of its first start.
    new.expires_at := null;
    new.error := null;
    new.progress := null;
    if enters = old.stage_no and old.status = 'waiting' then
      update ops_job_stages s set result = null, finished_at = null
      where s.job_id = old.id and s.stage_no = enters;
    end if;
  end if;
  return new;
end
$$;
comment on function ops_advance_job() is 'Leads a job with stages from one to the next: what a success makes of it, what lets it past a gate, where a retry begins.';
-- Before ops_jobs_guard_update, which refuses what is illegal and numbers the events that this one asks for in moved.
create trigger ops_jobs_advance before update on ops_jobs
for each row when (
  (old.stage_no is not null and old.status is distinct from new.status)
  or old.stage_no is distinct from new.stage_no
  or old.stage_type is distinct from new.stage_type
)
execute function ops_advance_job();

create function ops_follow_stages() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  if new.status = 'running' then
    update ops_job_stages s
    set status = 'running', attempts = s.attempts + 1, first_fence = coalesce(s.first_fence, new.fence), last_fence = new.fence,
      started_at = new.started_at, finished_at = null
    where s.job_id = new.id and s.stage_no = new.stage_no;
  elsif new.status = 'queued' or new.held_at is not null then
    update ops_job_stages s
    set status = new.status, error = new.error,
      attempts = s.attempts - (old.status = 'running' and new.attempt < old.attempt)::int
    where s.job_id = new.id and s.stage_no = new.stage_no;
  elsif new.status in ('failed', 'aborted') then
    update ops_job_stages s
    set status = new.status, error = new.error, finished_at = new.finished_at
    where s.job_id = new.id and s.stage_no = new.stage_no and s.status <> 'succeeded';
    update ops_gates g set state = 'closed' where g.job_id = new.id and g.state = 'open';
  end if;
  return null;
end
$$;
comment on function ops_follow_stages() is 'Keeps the current stage''s row in step with its job.';
create trigger ops_jobs_follow_stages after update on ops_jobs
for each row when (new.stage_no is not null and old.status is distinct from new.status)
execute function ops_follow_stages();

create function ops_forget_stages() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  delete from ops_gate_approvals a where a.job_id = old.id;
  delete from ops_gates g where g.job_id = old.id;
  delete from ops_job_stages s where s.job_id = old.id;
  return null;
end
$$;
comment on function ops_forget_stages() is 'Stages and gates leave with their job.';
create trigger ops_jobs_forget_stages after delete on ops_jobs
for each row when (old.stage_no is not null)
execute function ops_forget_stages();

create function ops_stage_data(job_id uuid, stage_no int, kind text, kinds text[]) returns jsonb
language sql stable security definer set search_path = public, pg_temp
as $$
  with at as (
    -- The job has gone on already; these tell of the stage before.
    select case
      when kind = 'gate_approved' or (kind = 'stage_succeeded' and 'stage_queued' = any (kinds)) then ops_stage_data.stage_no - 1
      else ops_stage_data.stage_no
    end as stage_no
  )
  select coalesce(
    (
      select jsonb_build_object('stage', s.name) || coalesce(
        (
          select jsonb_strip_nulls(jsonb_build_object(
            'revision', g.revision, 'document_hash', g.document_hash,
            'approvals', case when kind = 'gate_opened' then g.approvals_needed end,
            'auto_approve_at', case when kind = 'gate_opened' then g.auto_approve_at end,
            'expires_at', case when kind = 'gate_opened' then g.expires_at end,
            'automatic', case when kind <> 'gate_opened' then g.automatic end
          )) || case when kind = 'gate_approved' and g.patch is not null then jsonb_build_object('patch', g.patch) else '{}' end
          from ops_gates g
          where g.job_id = s.job_id and g.stage_no = s.stage_no and kind in ('gate_opened', 'gate_approved', 'gate_expired')
          order by g.revision desc
          limit 1
        ),
        '{}'
      )
      from ops_job_stages s, at
      where s.job_id = ops_stage_data.job_id and s.stage_no = at.stage_no
    ),
    '{}'
  )
$$;
comment on function ops_stage_data(uuid, int, text, text[]) is 'What an event of a job with stages says beside the usual: its stage, and the gate that it tells of.';

create function ops_stage_at_work(job_id uuid, stage_no int) returns jsonb
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
begin
  -- Volatile: it looks after the claim has locked the job, and not with the eyes of before.
  return (
    select jsonb_build_object(
      'name', s.name, 'attempt', s.attempts + 1, 'payload', s.payload,
      'earlier', coalesce(
        (
          select jsonb_agg(jsonb_build_object('name', e.name, 'result', e.result) order by e.stage_no)
          from ops_job_stages e
          where e.job_id = s.job_id and e.stage_no < s.stage_no
        ),
        '[]'
      )
    )
    from ops_job_stages s
    where s.job_id = ops_stage_at_work.job_id and s.stage_no = ops_stage_at_work.stage_no
  );
end
$$;
comment on function ops_stage_at_work(uuid, int) is 'What a claim gives of the stage that it begins: name, attempt, payload (null: the job''s), the stages before it with their results; null: every stage is done.';

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

create or replace function ops_keep_slot() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  if old.status <> 'running' and new.status = 'running' then
    update ops_slots s set job_id = new.id, fence = new.fence
    where s.job_type = coalesce(new.stage_type, new.job_type) and s.slot_no = new.slot_no and s.job_id is null;
    if not found then
      raise exception 'place % of job type % is not free', new.slot_no, coalesce(new.stage_type, new.job_type) using
        errcode = 'check_violation', constraint = 'ops_slots_free';
    end if;
    return new;
  end if;
  if old.status = 'running' and new.status <> 'running' then
    update ops_slots s set job_id = null, fence = null
    where s.job_type = coalesce(old.stage_type, old.job_type) and s.slot_no = old.slot_no and s.job_id = old.id;
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
  -- Depth 2: the gate's own trigger tells of its decision.
  if new.kind in ('queued', 'lease_expired', 'released', 'dead_lettered', 'held', 'stage_succeeded', 'stage_queued', 'gate_approved', 'gate_expired')
    or (new.kind in ('gate_rejected', 'gate_approval') and pg_trigger_depth() < 2)
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

create function ops_record_stages(job uuid, job_type text, stages jsonb, max_attempts int, timeout_seconds int) returns void
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  unknown text;
begin
  if jsonb_typeof(stages) <> 'array' or jsonb_array_length(stages) not between 1 and 100
    or jsonb_path_exists(stages, 'strict $[*] ? (@.type() != "object")')
  then
    raise exception 'stages is an array of 1 to 100 objects' using errcode = 'invalid_parameter_value';
  end if;
  select k into unknown
  from jsonb_array_elements(stages) s, jsonb_object_keys(s) k
  where k not in ('name', 'job_type', 'payload', 'max_attempts', 'timeout_seconds', 'gate')
  limit 1;
  if unknown is not null then
    raise exception 'a stage has no field %', unknown using
      errcode = 'invalid_parameter_value', hint = 'It has name, job_type, payload, max_attempts, timeout_seconds and gate.';
  end if;
  insert into ops_job_stages (job_id, stage_no, name, job_type, payload, gate, max_attempts, timeout_seconds)
  select
    ops_record_stages.job, o, s ->> 'name', coalesce(s ->> 'job_type', ops_record_stages.job_type),
    nullif(s -> 'payload', 'null'), nullif(s -> 'gate', 'null'),
    coalesce((s ->> 'max_attempts')::int, ops_record_stages.max_attempts),
    coalesce((s ->> 'timeout_seconds')::int, ops_record_stages.timeout_seconds)
  from jsonb_array_elements(stages) with ordinality as e (s, o);
end
$$;
comment on function ops_record_stages(uuid, text, jsonb, int, int) is 'Writes the stages of a job that is about to be recorded.';

drop function ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text);
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
  idempotency_key text default null,
  stages jsonb default null
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
    if ops_enqueue.stages is not null then
      asked := sha256(asked || convert_to(ops_enqueue.stages::text, 'UTF8'));
    end if;
  end if;
  if ops_enqueue.stages is not null then
    -- Before the job, whose first stage is read when it is inserted.
    job := ops_uuidv7();
    perform ops_record_stages(job, ops_enqueue.job_type, ops_enqueue.stages, ops_enqueue.max_attempts, ops_enqueue.timeout_seconds);
    insert into ops_jobs (
      id, job_type, payload, queue, priority, run_at, expires_at, max_attempts, max_attempts_by_type, timeout_seconds,
      labels, idempotency_key, request_hash, stage_no
    ) values (
      job, ops_enqueue.job_type, coalesce(ops_enqueue.payload, '{}'), coalesce(ops_enqueue.queue, 'default'),
      coalesce(ops_enqueue.priority, 0), coalesce(ops_enqueue.run_at, now()),
      clock_timestamp() + make_interval(secs => ops_enqueue.ttl_seconds),
      coalesce(ops_enqueue.max_attempts, 1), ops_enqueue.max_attempts is null, ops_enqueue.timeout_seconds,
      coalesce(ops_enqueue.labels, '{}'), ops_enqueue.idempotency_key, asked, 1
    )
    on conflict (idempotency_key) where idempotency_key is not null do nothing;
    if not found then
      delete from ops_job_stages s where s.job_id = job;
      job := null;
    end if;
  else
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
  end if;
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

comment on function ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text, jsonb) is
  'Records a job in the caller''s own transaction and gives its id: select ops_enqueue(''metrics_refresh'', priority => 5). It exists when the transaction commits.';

drop function ops_retry(uuid, text);
create function ops_retry(id uuid, reason text default null, from_start boolean default false) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  found_job ops_jobs;
begin
  select * into found_job from ops_jobs j where j.id = ops_retry.id for update;
  if found_job.id is null then
    raise exception 'no job %', ops_retry.id using errcode = 'no_data_found';
  elsif found_job.status in ('failed', 'aborted') then
    perform set_config('ops.reason', coalesce(ops_retry.reason, ''), true);
    update ops_jobs j set status = 'queued', stage_no = case when ops_retry.from_start and j.stage_no is not null then 1 else j.stage_no end
    where j.id = ops_retry.id;
    perform set_config('ops.reason', '', true);
    return 'queued';
  end if;
  raise exception 'job % is %: only failed and aborted jobs are retried', ops_retry.id, found_job.status using
    errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
    hint = case when found_job.status = 'succeeded' then 'Record a new one with ops_enqueue(job_type, payload).'
      else format('It is not over yet; stop it with ops_abort(%L).', ops_retry.id) end;
end
$$;
comment on function ops_retry(uuid, text, boolean) is
  'Queues a failed or aborted job again, with a fresh attempt budget: a job with stages at the stage that failed, or at its first with from_start => true.';

create or replace function ops_resume(id uuid, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  found_job ops_jobs;
  found_gate ops_gates;
begin
  select * into found_job from ops_jobs j where j.id = ops_resume.id for update;
  if found_job.id is null then
    raise exception 'no job %', ops_resume.id using errcode = 'no_data_found';
  end if;
  select * into found_gate from ops_gates g
  where g.job_id = found_job.id and g.stage_no = found_job.stage_no
  order by g.revision desc
  limit 1;
  if found_job.status = 'waiting' and found_job.held_at is not null then
    perform set_config('ops.reason', coalesce(ops_resume.reason, ''), true);
    -- The person asks for another attempt, so there is one.
    update ops_jobs j set status = 'queued', max_attempts = greatest(j.max_attempts, j.attempt + 1)
    where j.id = ops_resume.id;
    perform set_config('ops.reason', '', true);
    return 'queued';
  elsif found_job.status = 'waiting' and found_gate.state = 'rejected' then
    perform set_config('ops.reason', coalesce(ops_resume.reason, ''), true);
    update ops_jobs j set status = 'queued' where j.id = ops_resume.id;
    perform set_config('ops.reason', '', true);
    return 'queued';
  end if;
  raise exception 'job % is %: only held jobs and rejected stages are resumed', ops_resume.id, found_job.status using
    errcode = 'check_violation', constraint = 'ops_jobs_legal_transition',
    hint = case
      when found_gate.state = 'open' then format('Its gate is open: ops_approve(%L, %L) or ops_reject(%L, %L).', ops_resume.id, found_gate.name, ops_resume.id, found_gate.name)
      when found_job.status = 'waiting' then 'It waits for something else than a lost runner.'
      when found_job.status in ('failed', 'aborted') then format('Queue it again with ops_retry(%L).', ops_resume.id)
      else 'There is nothing to resume.' end;
end
$$;
comment on function ops_resume(uuid, text) is
  'Queues a job again that waits: held because its runner was lost (it has one more attempt, if none was left), or rejected at a gate (the stage is run again).';

create function ops_settle_gate(job_id uuid, stage_no int, revision int) returns boolean
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  due ops_gates;
begin
  select * into due from ops_gates g
  where g.job_id = ops_settle_gate.job_id and g.stage_no = ops_settle_gate.stage_no and g.revision = ops_settle_gate.revision
    and g.state = 'open' and least(g.auto_approve_at, g.expires_at) <= clock_timestamp()
  for update;
  if not found then
    return false;
  end if;
  update ops_gates g
  set automatic = true,
    state = case
      when due.auto_approve_at <= coalesce(due.expires_at, 'infinity') then 'approved'
      else case due.on_expiry when 'approve' then 'approved' when 'reject' then 'rejected' else 'expired' end
    end,
    reason = case
      when due.auto_approve_at <= coalesce(due.expires_at, 'infinity') then 'nobody decided before its auto-approval'
      else 'nobody decided before it expired'
    end
  where g.job_id = due.job_id and g.stage_no = due.stage_no and g.revision = due.revision;
  return true;
end
$$;
comment on function ops_settle_gate(uuid, int, int) is 'Decides an open gate whose time has come, by the database''s clock; false where there is nothing to decide. The caller has locked the job.';

create function ops_sweep_gates(actor text) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  before text := current_setting('ops.actor', true);
  due record;
  settled int := 0;
begin
  perform set_config('ops.actor', ops_sweep_gates.actor, true);
  -- Jobs before gates, as every decision locks them; one that is being decided just now is left alone.
  for due in
    select g.job_id, g.stage_no, g.revision
    from ops_gates g
    join ops_jobs j on j.id = g.job_id
    where g.state = 'open' and least(g.auto_approve_at, g.expires_at) <= clock_timestamp()
    order by least(g.auto_approve_at, g.expires_at)
    limit 100
    for update of j skip locked
  loop
    settled := settled + ops_settle_gate(due.job_id, due.stage_no, due.revision)::int;
  end loop;
  perform set_config('ops.actor', coalesce(before, ''), true);
  return settled;
end
$$;
comment on function ops_sweep_gates(text) is 'Decides the open gates whose time has come, at most 100; gives how many. Any number at once.';

create function ops_decide(
  id uuid,
  name text,
  decision text,
  reason text default null,
  revision int default null,
  document_hash text default null,
  patch jsonb default null,
  patched jsonb default null
) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  who text := ops_actor();
  found_job ops_jobs;
  gate ops_gates;
  given int;
begin
  if ops_decide.decision not in ('approve', 'reject') then
    raise exception 'a decision is approve or reject' using errcode = 'invalid_parameter_value';
  end if;
  select * into found_job from ops_jobs j where j.id = ops_decide.id for update;
  if found_job.id is null then
    return 'no_job';
  end if;
  select * into gate from ops_gates g
  where g.job_id = ops_decide.id and g.name = ops_decide.name
  order by g.revision desc
  limit 1;
  if gate.job_id is null then
    return 'no_gate';
  end if;
  if ops_settle_gate(gate.job_id, gate.stage_no, gate.revision) or gate.state <> 'open' then
    return 'decided_before';
  end if;
  if ops_decide.revision <> gate.revision or ops_decide.document_hash <> gate.document_hash then
    return 'changed';
  end if;
  if who <> all (gate.only_keys) then
    return 'not_named';
  end if;
  if gate.not_requester and who = found_job.created_by then
    return 'requester';
  end if;
  if ops_decide.decision = 'approve' and gate.approvals_needed > 1 then
    if ops_decide.patched is not null then
      return 'patch_of_several';
    end if;
    insert into ops_gate_approvals (job_id, stage_no, revision, actor, reason)
    values (gate.job_id, gate.stage_no, gate.revision, who, ops_decide.reason)
    on conflict do nothing;
    if not found then
      return 'approved_before';
    end if;
    select count(*) into given from ops_gate_approvals a
    where a.job_id = gate.job_id and a.stage_no = gate.stage_no and a.revision = gate.revision;
    if given < gate.approvals_needed then
      return 'counted';
    end if;
  end if;
  update ops_gates g
  set state = case ops_decide.decision when 'approve' then 'approved' else 'rejected' end,
    decided_by = who, reason = ops_decide.reason, patch = ops_decide.patch, patched = ops_decide.patched
  where g.job_id = gate.job_id and g.stage_no = gate.stage_no and g.revision = gate.revision;
  return 'decided';
end
$$;
comment on function ops_decide(uuid, text, text, text, int, text, jsonb, jsonb) is
  'Decides an open gate once and moves its job: decided or counted; or why not: no_job, no_gate, decided_before, changed, not_named, requester, patch_of_several, approved_before.';

create function ops_refused_decision(answer text, id uuid, name text) returns text
language plpgsql stable
as $$
begin
  if answer in ('decided', 'counted') then
    return answer;
  end if;
  raise exception 'gate % of job % was not decided: %', name, id, case answer
    when 'no_job' then 'there is no such job'
    when 'no_gate' then 'it has no such gate, or has not reached it'
    when 'decided_before' then 'a decision stands already'
    when 'changed' then 'what it shows has changed'
    when 'not_named' then 'it is for others to decide'
    when 'requester' then 'whoever asked for the job may not decide'
    when 'patch_of_several' then 'a gate with several approvals takes no change of its document'
    when 'approved_before' then 'you have approved it before'
    else answer
  end using
    errcode = case when answer in ('no_job', 'no_gate') then 'no_data_found' when answer in ('not_named', 'requester') then 'insufficient_privilege' else 'check_violation' end,
    hint = 'See select * from ops_gates.';
end
$$;
comment on function ops_refused_decision(text, uuid, text) is 'Raises the reason for which ops_decide said no.';

create function ops_approve(id uuid, name text, reason text default null, result jsonb default null) returns text
language sql security definer set search_path = public, pg_temp
as $$
  select ops_refused_decision(
    ops_decide(ops_approve.id, ops_approve.name, 'approve', ops_approve.reason, patched => ops_approve.result),
    ops_approve.id, ops_approve.name
  )
$$;
comment on function ops_approve(uuid, text, text, jsonb) is
  'Approves the open gate of this name; its job goes on. With result => … the stage''s result is replaced first. decided, or counted where others must approve too.';

create function ops_reject(id uuid, name text, reason text default null, payload jsonb default null) returns text
language sql security definer set search_path = public, pg_temp
as $$
  select ops_refused_decision(
    ops_decide(ops_reject.id, ops_reject.name, 'reject', ops_reject.reason, patched => ops_reject.payload),
    ops_reject.id, ops_reject.name
  )
$$;
comment on function ops_reject(uuid, text, text, jsonb) is
  'Rejects the open gate of this name; its job waits for ops_resume(id), which runs the stage again. With payload => … the stage''s payload is replaced first.';

-- As before for jobs without stages. The files of a stage that succeeded stay, whatever comes after it.
create or replace view ops_artifacts as
select
  f.job_id, f.name, f.stage, f.size, f.content_type, f.sha256, f.crc32, f.attempt, f.object, f.created_at, f.id
from ops_files f
join ops_jobs j on j.id = f.job_id
where f.kind = 'artifact' and f.sha256 is not null and (
  (j.fence = f.fence and j.status <> 'running')
  or (f.stage is not null and exists (
    select from ops_job_stages s
    where s.job_id = f.job_id and s.name = f.stage and s.last_fence = f.fence and s.status = 'succeeded'
  ))
);
comment on view ops_artifacts is 'What the newest attempt of each job, and of each of its stages, left, once it has ended.';

create view ops_open_gates as
select
  g.job_id, g.name, g.revision, j.job_type, j.created_by, g.document, g.document_hash, g.approvals_needed,
  g.opened_at, g.auto_approve_at, g.expires_at
from ops_gates g
join ops_jobs j on j.id = g.job_id
where g.state = 'open';
comment on view ops_open_gates is 'What waits for a person: decide with ops_approve(job_id, name) or ops_reject(job_id, name).';
comment on column ops_open_gates.job_id is 'The job.';
comment on column ops_open_gates.name is 'The gate, by the name of its stage.';
comment on column ops_open_gates.revision is 'How many times it has opened.';
comment on column ops_open_gates.job_type is 'The job''s type.';
comment on column ops_open_gates.created_by is 'Who asked for the job.';
comment on column ops_open_gates.document is 'What is decided about: the stage''s result.';
comment on column ops_open_gates.document_hash is 'Its hash.';
comment on column ops_open_gates.approvals_needed is 'So many must approve.';
comment on column ops_open_gates.opened_at is 'Since when it waits.';
comment on column ops_open_gates.auto_approve_at is 'When it is approved by itself.';
comment on column ops_open_gates.expires_at is 'When it is no longer waited for.';
