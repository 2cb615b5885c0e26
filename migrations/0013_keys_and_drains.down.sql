-- Before this there were no keys in the database, and no drained runner.
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
    order by r.id
  ) t;
  if takers is null then
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

drop function ops_forget_runner(text, text);
drop function ops_undrain_runner(text, text);
drop function ops_drain_runner(text, text);
drop function ops_unknown_runner(text);
drop trigger ops_runners_guard on ops_runners;
drop function ops_guard_runner();
alter table ops_fleet_changes disable trigger ops_fleet_changes_append_only;
delete from ops_fleet_changes where runner_id is not null;
alter table ops_fleet_changes enable trigger ops_fleet_changes_append_only;
alter table ops_fleet_changes
  drop constraint ops_fleet_changes_known,
  drop column runner_id,
  add constraint ops_fleet_changes_known check (change in ('paused', 'resumed'));
comment on table ops_fleet_changes is 'Each pause and each resumption of the fleet, one row each. Append-only; written by the database.';
comment on column ops_fleet_changes.change is 'paused or resumed.';
alter table ops_runners
  drop constraint ops_runners_drained_by_somebody,
  drop column protocol, drop column drain_requested_at, drop column drain_requested_by, drop column drain_reason;
alter table ops_fleet
  drop constraint ops_fleet_protocols_in_order, drop column protocol_min, drop column protocol_max;
drop table ops_api_keys;
drop function ops_guard_api_key();
