-- Keys with a scope, runners that are drained one by one, and the range of protocols that the database serves.
--
-- Only adds. The release before reads none of it: its control planes accept the keys of their environment only, and its
-- runners go on claiming while they are drained, so a drain in the middle of a deploy holds for them once they are replaced.

create table ops_api_keys (
  id text not null generated always as ('key:' || left(encode(digest, 'hex'), 8)) stored,
  name text not null,
  digest bytea not null,
  scope text not null,
  created_at timestamptz not null default clock_timestamp(),
  created_by text not null default ops_actor(),
  expires_at timestamptz,
  revoked_at timestamptz,
  revoked_by text,
  last_used_at timestamptz,
  constraint ops_api_keys_pkey primary key (id),
  constraint ops_api_keys_one_digest unique (digest),
  constraint ops_api_keys_digest_is_sha256 check (octet_length(digest) = 32),
  constraint ops_api_keys_scope_known check (scope in ('read', 'enqueue', 'operate', 'admin')),
  constraint ops_api_keys_name_sane check (char_length(name) between 1 and 100),
  constraint ops_api_keys_revoked_by_somebody check ((revoked_at is null) = (revoked_by is null))
) with (fillfactor = 70);
comment on table ops_api_keys is 'Keys to the control plane beside those of OPS_API_KEY: never the key, only its digest. Use opsctl keys new | list | revoke.';
comment on column ops_api_keys.id is 'What events name it by: the beginning of its digest.';
comment on column ops_api_keys.name is 'Who or what bears it, in the words of who made it.';
comment on column ops_api_keys.digest is 'SHA-256 of the key, which is 256 random bits.';
comment on column ops_api_keys.scope is 'What it opens: read, enqueue, operate or admin; each also what is before it.';
comment on column ops_api_keys.created_at is 'When it was recorded.';
comment on column ops_api_keys.created_by is 'Who recorded it: a key''s id, or a login.';
comment on column ops_api_keys.expires_at is 'From when on it opens nothing; null: never.';
comment on column ops_api_keys.revoked_at is 'Since when it opens nothing, whatever expires_at says; a control plane may take some seconds to hear of it.';
comment on column ops_api_keys.revoked_by is 'Who revoked it; set exactly when it is revoked.';
comment on column ops_api_keys.last_used_at is 'When it last opened something, within a minute.';
comment on index ops_api_keys_one_digest is 'For the control plane: the key that a caller shows, by its digest.';

create function ops_guard_api_key() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    new.created_at := clock_timestamp();
    new.created_by := ops_actor();
    new.revoked_at := null;
    new.revoked_by := null;
    new.last_used_at := null;
    return new;
  end if;
  if new.digest <> old.digest or new.scope <> old.scope or new.name <> old.name or new.created_at <> old.created_at
    or new.created_by <> old.created_by or old.revoked_at is not null and new.revoked_at is null
  then
    raise exception 'key % is what it was made as, and stays revoked once it is', old.id using
      errcode = 'check_violation', constraint = 'ops_api_keys_immutable', hint = 'Make another key: opsctl keys new.';
  end if;
  if old.revoked_at is not null then
    new.revoked_at := old.revoked_at;
    new.revoked_by := old.revoked_by;
  elsif new.revoked_at is not null then
    new.revoked_at := clock_timestamp();
    new.revoked_by := ops_actor();
  else
    new.revoked_by := null;
  end if;
  return new;
end
$$;
comment on function ops_guard_api_key() is 'Notes who made and who revoked a key, however it was done; nothing else of a key changes but when it expires and was last used.';

create trigger ops_api_keys_guard before insert or update on ops_api_keys
for each row execute function ops_guard_api_key();

-- Runners: drained one by one, for good until undrained, and only those that speak what the database serves.

alter table ops_fleet
  add column protocol_min int not null default 1,
  add column protocol_max int not null default 1,
  add constraint ops_fleet_protocols_in_order check (protocol_min <= protocol_max);
comment on column ops_fleet.protocol_min is 'The oldest protocol of runners that this schema serves: others claim nothing. Set by migrations.';
comment on column ops_fleet.protocol_max is 'The newest protocol of runners that this schema serves.';

alter table ops_runners
  add column protocol int,
  add column drain_requested_at timestamptz,
  add column drain_requested_by text,
  add column drain_reason text,
  add constraint ops_runners_drained_by_somebody
    check ((drain_requested_at is null) = (drain_requested_by is null) and (drain_reason is null or drain_requested_at is not null));
comment on column ops_runners.protocol is 'How it speaks with the database; null: as the releases that do not say, which is 1.';
comment on column ops_runners.drain_requested_at is 'Since when it is given no job, over restarts too; null: it is given jobs.';
comment on column ops_runners.drain_requested_by is 'Who drained it; set exactly while it is drained.';
comment on column ops_runners.drain_reason is 'Why, in the words of who drained it.';

alter table ops_fleet_changes
  add column runner_id text,
  drop constraint ops_fleet_changes_known,
  add constraint ops_fleet_changes_known check (
    change in ('paused', 'resumed') and runner_id is null or change in ('drained', 'undrained', 'forgotten') and runner_id is not null
  );
comment on table ops_fleet_changes is 'Each pause and resumption of the fleet, and each drain, undrain and forgetting of a runner, one row each. Append-only; written by the database.';
comment on column ops_fleet_changes.change is 'paused or resumed; of one runner: drained, undrained or forgotten.';
comment on column ops_fleet_changes.runner_id is 'The runner, where it is about one.';

create function ops_guard_runner() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  why text := coalesce(nullif(current_setting('ops.reason', true), ''), case when new.drain_requested_at is not null then new.drain_reason end);
begin
  -- As for the fleet: whoever changes it, by a function or by hand, who and when come from the database.
  if (new.drain_requested_at is null) = (old.drain_requested_at is null) then
    new.drain_requested_at := old.drain_requested_at;
    new.drain_requested_by := old.drain_requested_by;
    new.drain_reason := old.drain_reason;
    return new;
  end if;
  if new.drain_requested_at is not null then
    new.drain_requested_at := clock_timestamp();
    new.drain_requested_by := ops_actor();
    new.drain_reason := why;
    new.draining := true;
  else
    new.drain_requested_by := null;
    new.drain_reason := null;
    new.draining := false;
  end if;
  insert into ops_fleet_changes (at, change, actor, reason, runner_id)
  values (clock_timestamp(), case when new.drain_requested_at is null then 'undrained' else 'drained' end, ops_actor(), why, new.id);
  return new;
end
$$;
comment on function ops_guard_runner() is 'Notes who drained or undrained a runner, when and why, however it was done.';

create trigger ops_runners_guard before update on ops_runners
for each row when (old.drain_requested_at is distinct from new.drain_requested_at
  or old.drain_requested_by is distinct from new.drain_requested_by or old.drain_reason is distinct from new.drain_reason)
execute function ops_guard_runner();

create function ops_unknown_runner(id text) returns text
language plpgsql
as $$
begin
  raise exception 'no runner %', id using errcode = 'no_data_found', hint = 'See select id, last_seen_at from ops_runners.';
end
$$;
comment on function ops_unknown_runner(text) is 'Refuses a runner that the database does not know.';

create function ops_drain_runner(id text, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '1s'
as $$
begin
  -- As ops_pause_fleet: every claim reads ops_fleet, so this waits for those under way, and none ends after the commit.
  begin
    lock table ops_fleet in access exclusive mode;
  exception when lock_not_available then
    raise notice 'claims that are under way may still take their jobs';
  end;
  perform set_config('ops.reason', coalesce(ops_drain_runner.reason, ''), true);
  update ops_runners r set drain_requested_at = coalesce(r.drain_requested_at, clock_timestamp()) where r.id = ops_drain_runner.id;
  if not found then
    perform ops_unknown_runner(ops_drain_runner.id);
  end if;
  perform set_config('ops.reason', '', true);
  return 'drained';
end
$$;
comment on function ops_drain_runner(text, text) is
  'From its commit on the runner is given no job, over restarts too, until ops_undrain_runner(id); what it runs goes on. Who, when and why are kept.';

create function ops_undrain_runner(id text, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  perform set_config('ops.reason', coalesce(ops_undrain_runner.reason, ''), true);
  update ops_runners r set drain_requested_at = null where r.id = ops_undrain_runner.id;
  if not found then
    perform ops_unknown_runner(ops_undrain_runner.id);
  end if;
  perform set_config('ops.reason', '', true);
  perform pg_notify('ops_jobs', '');
  return 'undrained';
end
$$;
comment on function ops_undrain_runner(text, text) is 'Lets a drained runner be given jobs again. Who, when and why are kept.';

create function ops_forget_runner(id text, reason text default null) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  heard timestamptz;
  ended int;
begin
  select r.last_seen_at into heard from ops_runners r where r.id = ops_forget_runner.id for update;
  if not found then
    perform ops_unknown_runner(ops_forget_runner.id);
  end if;
  if heard > clock_timestamp() - interval '1 minute' then
    raise exception 'runner % was heard of at %', ops_forget_runner.id, heard using
      errcode = 'object_not_in_prerequisite_state', hint = 'Stop it first; it can be forgotten once it has been silent for a minute.';
  end if;
  delete from ops_runners r where r.id = ops_forget_runner.id;
  -- Without a lease that holds, the next sweep takes them for lost.
  update ops_jobs j set lease_expires_at = clock_timestamp() - interval '1 millisecond'
  where j.status = 'running' and j.runner_id = ops_forget_runner.id and j.lease_expires_at > clock_timestamp();
  get diagnostics ended = row_count;
  insert into ops_fleet_changes (at, change, actor, reason, runner_id)
  values (clock_timestamp(), 'forgotten', ops_actor(), ops_forget_runner.reason, ops_forget_runner.id);
  return ended;
end
$$;
comment on function ops_forget_runner(text, text) is
  'Removes a runner that has been silent for a minute, and ends the leases of what it ran: the next sweep takes those jobs for lost. Gives their number.';

-- Why: also that runners are drained, or do not fit.

create or replace function ops_why(id uuid, closed jsonb default '{}', stalled_after interval default '20 seconds')
returns table (place int, code text, message text, remedy text, data jsonb)
language plpgsql stable
as $$
#variable_conflict use_column
declare
  -- So many of what stands before a job are counted, or named.
  most_counted constant int := 1000;
  most_named constant int := 20;
  instant timestamptz := clock_timestamp();
  j ops_jobs;
  f ops_fleet;
  last ops_job_events;
  takers jsonb;
  takers_types text[];
  silent jsonb;
  silent_since timestamptz;
  own_order timestamptz;
  type_limit int;
  holders jsonb;
  -- Types with a limit are claimed each by itself, the others together: only these stand in each other's way.
  together text[];
  blocker uuid;
  ahead bigint;
  soonest double precision;
  closed_runners jsonb;
  told text;
begin
  place := 0;
  select * into j from ops_jobs o where o.id = ops_why.id;
  if not found then
    raise exception 'no job %', ops_why.id using errcode = 'no_data_found';
  end if;

  if j.status in ('succeeded', 'failed', 'aborted') then
    select * into last from ops_job_events e
    where e.job_id = j.id and e.kind in ('succeeded', 'failed', 'aborted', 'abort_requested') order by e.seq desc limit 1;
    place := 1;
    code := case when j.dead_lettered_at is not null then 'dead_lettered' else j.status end;
    data := jsonb_strip_nulls(jsonb_build_object(
      'since', j.finished_at, 'attempt', j.attempt, 'max_attempts', j.max_attempts, 'error', j.error, 'actor', last.actor,
      'reason', last.data ->> 'reason'
    ));
    if j.status = 'succeeded' then
      message := format('It succeeded at %s, in attempt %s.', j.finished_at, j.attempt);
      remedy := 'Nothing: it has ended. Record another job to do the same again.';
    elsif j.status = 'aborted' then
      message := format('It was aborted at %s by %s%s.', j.finished_at, coalesce(last.actor, 'somebody'), coalesce(': ' || (last.data ->> 'reason'), ''));
      remedy := 'Retry it to have it queued again.';
    elsif j.dead_lettered_at is not null then
      message := format('It failed at %s with its attempts used up (%s of %s): %s', j.finished_at, j.attempt, j.max_attempts, coalesce(j.error, 'no error was given'));
      remedy := 'Mend the cause, then retry it: it has a fresh budget of attempts.';
    else
      message := format('It failed for good at %s: %s', j.finished_at, coalesce(j.error, 'no error was given'));
      remedy := 'Mend the cause, then retry it.';
    end if;
    return next;
    return;
  end if;

  if j.status = 'waiting' then
    place := 1;
    if j.held_at is not null then
      code := 'held';
      message := format('Its runner was lost at %s, and jobs of type %s are then held for a person.', j.held_at, j.job_type);
      remedy := 'Find out how far it came, then resume it (it runs again), or abort it.';
      data := jsonb_strip_nulls(jsonb_build_object('since', j.held_at, 'lost_count', j.lost_count, 'error', j.error));
    else
      code := 'gate';
      message := format('It waits since %s for a decision.', j.updated_at);
      remedy := 'Decide: let it go on, or abort it.';
      data := jsonb_build_object('since', j.updated_at);
    end if;
    return next;
    return;
  end if;

  if j.status = 'running' then
    if j.abort_requested_at is not null then
      select * into last from ops_job_events e
      where e.job_id = j.id and e.kind = 'abort_requested' order by e.seq desc limit 1;
      place := place + 1;
      code := 'abort_requested';
      message := format('Its end was asked for at %s by %s; its runner %s stops it.', j.abort_requested_at, coalesce(last.actor, 'somebody'), j.runner_id);
      remedy := 'Wait: the runner hears of it at its next renewal and kills what does not end within 2 s.';
      data := jsonb_strip_nulls(jsonb_build_object('since', j.abort_requested_at, 'actor', last.actor, 'reason', last.data ->> 'reason'));
      return next;
    end if;
    if j.lease_expires_at <= instant then
      place := place + 1;
      code := 'lease_ran_out';
      message := format('Its runner %s was not heard of since %s, and its lease ran out at %s.', j.runner_id, j.heartbeat_at, j.lease_expires_at);
      remedy := 'The next sweep takes it back: of any runner that looks by itself, or by POST /tick.';
      data := jsonb_build_object('since', j.lease_expires_at, 'runner_id', j.runner_id, 'heartbeat_at', j.heartbeat_at);
      return next;
    elsif j.heartbeat_at < instant - stalled_after then
      place := place + 1;
      code := 'stalled';
      message := format('Its runner %s was not heard of since %s.', j.runner_id, j.heartbeat_at);
      remedy := format('Look after the runner; if it stays silent, the job is taken back once its lease has run out, at %s.', j.lease_expires_at);
      data := jsonb_build_object('since', j.heartbeat_at, 'runner_id', j.runner_id, 'until', j.lease_expires_at);
      return next;
    end if;
    place := place + 1;
    code := 'running';
    message := format('Runner %s runs it since %s, attempt %s of %s.', j.runner_id, j.started_at, j.attempt, j.max_attempts);
    remedy := 'Wait, or abort it.';
    data := jsonb_strip_nulls(jsonb_build_object(
      'since', j.started_at, 'runner_id', j.runner_id, 'attempt', j.attempt, 'max_attempts', j.max_attempts,
      'until', j.started_at + make_interval(secs => j.timeout_seconds), 'progress', j.progress
    ));
    return next;
    return;
  end if;

  -- Queued. First what keeps every runner from it, then what keeps these, then what is before it.
  if closed ? j.job_type then
    place := place + 1;
    code := 'flag_off';
    message := format('Its type %s is behind the flag %s, which is off.', j.job_type, closed ->> j.job_type);
    remedy := format('Switch %s on for the control plane and for the runners, and restart them.', closed ->> j.job_type);
    data := jsonb_build_object('flag', closed ->> j.job_type);
    return next;
  end if;
  select * into f from ops_fleet s where s.paused_at is not null;
  if found then
    place := place + 1;
    code := 'fleet_paused';
    message := format('The fleet was paused at %s by %s%s.', f.paused_at, f.paused_by, coalesce(': ' || f.reason, ''));
    remedy := 'Resume it: opsctl fleet resume, POST /fleet/resume, or ops_resume_fleet().';
    data := jsonb_build_object('since', f.paused_at, 'paused_by', f.paused_by, 'reason', f.reason);
    return next;
  end if;
  if j.expires_at <= instant then
    place := place + 1;
    code := 'outlived';
    message := format('Its time to live ran out at %s before anybody took it.', j.expires_at);
    remedy := 'None: the next sweep fails it. Retry it then.';
    data := jsonb_build_object('since', j.expires_at);
    return next;
  end if;
  if j.run_at > instant then
    place := place + 1;
    code := 'not_due';
    message := case when j.attempt > 0
      then format('Attempt %s of %s failed, and the next is not due before %s.', j.attempt, j.max_attempts, j.run_at)
      else format('It is not due before %s.', j.run_at)
    end;
    remedy := format('Wait, or have it now: update ops_jobs set run_at = now() where id = %L.', j.id);
    data := jsonb_strip_nulls(jsonb_build_object(
      'until', j.run_at, 'attempt', j.attempt, 'max_attempts', j.max_attempts, 'error', case when j.attempt > 0 then j.error end
    ));
    return next;
  end if;

  -- Who takes its type, with what each has at work by the jobs' own rows; one that runs a job alone has no slot to give.
  select
    jsonb_agg(jsonb_build_object('runner_id', t.id, 'slots_used', t.used, 'slots_total', t.slots_total, 'full', t.used >= t.slots_total or t.alone)),
    (select array_agg(distinct x) from unnest(string_to_array(string_agg(array_to_string(t.job_types, ','), ','), ',')) x),
    max((t.type_limits ->> j.job_type)::int),
    min(nullif(t.poll_seconds, 0)) filter (where t.poll_seconds is not null)
  into takers, takers_types, type_limit, soonest
  from (
    select r.*, coalesce(w.used, 0) as used, coalesce(w.alone, false) as alone
    from ops_runners r
    left join (
      select o.runner_id, count(*)::int as used, bool_or(o.lost_count > 0) as alone
      from ops_jobs o where o.status = 'running' group by o.runner_id
    ) w on w.runner_id = r.id
    where j.job_type = any (r.job_types) and not r.draining and r.last_seen_at > instant - interval '1 minute'
      and exists (select from ops_fleet s where coalesce(r.protocol, 1) between s.protocol_min and s.protocol_max)
    order by r.id
  ) t;
  if takers is null then
    -- Some live, and somebody or something keeps them from taking jobs: that is said before it is said that nobody does.
    select
      jsonb_agg(jsonb_build_object('runner_id', r.id, 'since', r.drain_requested_at, 'actor', r.drain_requested_by, 'reason', r.drain_reason) order by r.id),
      string_agg(format('%s by %s at %s%s', r.id, r.drain_requested_by, r.drain_requested_at, coalesce(' (' || r.drain_reason || ')', '')), ', ' order by r.id)
    into closed_runners, told
    from ops_runners r
    where j.job_type = any (r.job_types) and r.drain_requested_at is not null and r.last_seen_at > instant - interval '1 minute';
    if closed_runners is not null then
      place := place + 1;
      code := 'runners_drained';
      message := format('Who would take jobs of type %s was drained: %s.', j.job_type, told);
      remedy := format('Undrain one (opsctl runners undrain %s), or start another runner.', closed_runners -> 0 ->> 'runner_id');
      data := jsonb_build_object('job_type', j.job_type, 'runners', closed_runners);
      return next;
    end if;
    select
      jsonb_agg(jsonb_build_object('runner_id', r.id, 'version', r.version, 'protocol', coalesce(r.protocol, 1), 'protocol_min', s.protocol_min, 'protocol_max', s.protocol_max) order by r.id),
      string_agg(format('%s (version %s) speaks protocol %s, this database serves %s to %s', r.id, r.version, coalesce(r.protocol, 1), s.protocol_min, s.protocol_max), '; ' order by r.id)
    into closed_runners, told
    from ops_runners r, ops_fleet s
    where j.job_type = any (r.job_types) and r.last_seen_at > instant - interval '1 minute'
      and coalesce(r.protocol, 1) not between s.protocol_min and s.protocol_max;
    if closed_runners is not null then
      place := place + 1;
      code := 'runners_incompatible';
      message := format('Who would take jobs of type %s does not fit this database: %s.', j.job_type, told);
      remedy := 'Deploy a release of the runner that fits the schema, or migrate the schema to the one that fits the runner.';
      data := jsonb_build_object('job_type', j.job_type, 'runners', closed_runners);
      return next;
    end if;
    select max(r.last_seen_at), jsonb_agg(jsonb_build_object('runner_id', r.id, 'last_seen_at', r.last_seen_at, 'draining', r.draining))
    into silent_since, silent
    from ops_runners r where j.job_type = any (r.job_types);
    place := place + 1;
    code := 'no_runner';
    message := case when silent_since is null
      then format('No runner that is known takes jobs of type %s.', j.job_type)
      else format('No living runner takes jobs of type %s; the last that did was heard of at %s.', j.job_type, silent_since)
    end;
    remedy := format('Start a runner that has %s in RUNNER_ALLOWLIST, its flag on, and a handler for it.', j.job_type);
    data := jsonb_strip_nulls(jsonb_build_object('job_type', j.job_type, 'since', silent_since, 'runners', silent));
    return next;
  else
    own_order := coalesce(j.claim_order, j.run_at - j.priority * interval '5 minutes');
    if j.lost_count > 0 and j.run_at <= instant and not exists (
      select from jsonb_array_elements(takers) t where (t ->> 'slots_used')::int = 0
    ) then
      place := place + 1;
      code := 'runs_alone';
      message := format('A runner was lost over it (%s times), so it starts only on one with nothing else at work, and none has.', j.lost_count);
      remedy := 'Wait until a runner is empty, or start another one.';
      data := jsonb_build_object('lost_count', j.lost_count, 'runners', takers);
      return next;
    end if;
    if type_limit is not null then
      select jsonb_agg(jsonb_build_object('job_id', s.job_id, 'runner_id', o.runner_id, 'since', o.started_at) order by s.slot_no)
        filter (where s.slot_no <= most_named)
      into holders
      from ops_slots s join ops_jobs o on o.id = s.job_id
      where s.job_type = j.job_type and s.slot_no <= type_limit
      having count(*) >= type_limit;
      if holders is not null then
        place := place + 1;
        code := 'concurrency';
        message := format('As many jobs of type %s run as may at once over the fleet: %s.', j.job_type, type_limit);
        remedy := 'Wait for one of them, abort one, or raise the type''s concurrency in the runners'' configuration.';
        data := jsonb_build_object('limit', type_limit, 'jobs', holders);
        return next;
      end if;
    end if;
    if not exists (select from jsonb_array_elements(takers) t where not (t ->> 'full')::boolean) then
      place := place + 1;
      code := 'slots_taken';
      message := format('Every slot of the runners that take its type is taken (%s of them).', jsonb_array_length(takers));
      remedy := 'Wait for a job to end, raise RUNNER_CONCURRENCY, or start another runner.';
      data := jsonb_build_object('runners', takers);
      return next;
    end if;
    if j.run_at <= instant then
      if type_limit is null then
        select array_agg(t.job_type) into together from unnest(takers_types) as t (job_type)
        where not exists (
          select from ops_runners r
          where r.type_limits ? t.job_type and j.job_type = any (r.job_types) and not r.draining
            and r.last_seen_at > instant - interval '1 minute'
        );
      else
        together := array[j.job_type];
      end if;
      select b.id into blocker from (
        select o.id, o.lost_count, o.run_at from ops_jobs o
        where o.status = 'queued' and o.claim_order is not null and o.run_at <= instant and o.job_type = any (together)
          and (o.expires_at is null or o.expires_at > instant)
        order by o.claim_order, o.id limit 1
      ) b
      where b.id <> j.id and b.lost_count > 0 and b.run_at < instant - interval '10 seconds';
      if blocker is not null then
        place := place + 1;
        code := 'behind_one_that_runs_alone';
        message := format('Job %s is first and must run alone; runners take nothing else until one of them has nothing at work.', blocker);
        remedy := format('Wait until a runner is empty, start another one, or abort job %s.', blocker);
        data := jsonb_build_object('job_id', blocker);
        return next;
      end if;
      select count(*) into ahead from (
        select from ops_jobs o
        where o.status = 'queued' and o.claim_order is not null and o.run_at <= instant and o.job_type = any (takers_types)
          and (o.claim_order, o.id) < (own_order, j.id)
        limit most_counted + 1
      ) a;
      if ahead > 0 then
        place := place + 1;
        code := 'jobs_ahead';
        message := format('%s due jobs that are older, or of higher priority, are before it.', case when ahead > most_counted then 'More than ' || most_counted else ahead::text end);
        remedy := format('Wait, start more runners, or raise its priority: update ops_jobs set priority = … where id = %L.', j.id);
        data := jsonb_build_object('jobs', least(ahead, most_counted), 'more', ahead > most_counted);
        return next;
      end if;
    end if;
    if soonest is null and not exists (
      select from ops_runners r
      where j.job_type = any (r.job_types) and not r.draining and r.last_seen_at > instant - interval '1 minute' and r.poll_seconds is null
    ) then
      place := place + 1;
      code := 'nobody_looks';
      message := 'No runner that takes its type looks for jobs by itself (RUNNER_POLL_INTERVAL_SECONDS is 0), and a hint that was lost is not given again.';
      remedy := 'Trigger it (POST /trigger_runner with its job_id), or call POST /tick of the runner from cron, or let the runners poll.';
      data := jsonb_strip_nulls(jsonb_build_object('runners', takers, 'last_sweep', (select s.ran_at from ops_sweeps s where s.name = 'sweep')));
      return next;
    end if;
  end if;

  if place = 0 then
    place := 1;
    code := 'due';
    message := 'It is due, and nothing keeps it: a runner with a free slot takes it at its next look.';
    remedy := 'Wait, or trigger it to have it at once.';
    data := jsonb_strip_nulls(jsonb_build_object('since', greatest(j.run_at, j.created_at), 'looks_every_seconds', soonest, 'runners', takers));
    return next;
  end if;
  if j.last_trigger_at is not null then
    place := place + 1;
    code := 'last_trigger';
    message := format('The last trigger, at %s, came to: %s.', j.last_trigger_at, coalesce(j.last_trigger_outcome, 'nothing that is known'));
    remedy := 'Trigger it again once what stands before is mended.';
    data := jsonb_build_object('since', j.last_trigger_at, 'outcome', j.last_trigger_outcome);
    return next;
  end if;
end
$$;
