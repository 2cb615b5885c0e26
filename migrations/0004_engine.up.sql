-- The engine: a cheaper guard and recorder, claims in an order in which waiting counts, jobs that are run alone, seals.
--
-- How a change of status travels now:
--   1. ops_guard_job (before each row) refuses illegal pairs, sets what follows from the change, and leaves in `moved` the
--      kinds of the events that are due.
--   2. ops_record_transitions (after the statement) writes the events of every row that has `moved`, all at once. It
--      needs only the new rows: the guard clears `moved` at the next change of anything.
-- The release before keeps working: the old columns keep their meaning, its claims use ops_jobs_due, which stays until the
-- release after this one. Takes the lock on ops_jobs for as long as two small indexes are built.

set local statement_timeout = '15min';

drop trigger ops_jobs_record_update on ops_jobs;
drop trigger ops_jobs_guard_update on ops_jobs;
drop function ops_record_transitions();

alter table ops_jobs
  add column moved text,
  add column left_runner_id text,
  add column claim_order timestamptz,
  add column released_count int not null default 0;
comment on column ops_jobs.moved is 'The kinds of the events that its newest change of status wrote, with spaces between; null once something else changed since. Kept by the database.';
comment on column ops_jobs.left_runner_id is 'The runner that held it before its newest change of status, where runner_id does not say so any more. Kept by the database.';
comment on column ops_jobs.claim_order is 'Claims take the smallest first: run_at, and 5 minutes earlier for each step of priority. Null until it is due. Kept by the database.';
comment on column ops_jobs.released_count is 'How often a stopping runner gave it back uncounted; from the tenth on a release counts as an attempt.';

create index ops_jobs_claims on ops_jobs (claim_order, id) where status = 'queued' and claim_order is not null;
comment on index ops_jobs_claims is 'Claims: the due jobs in claiming order.';
create index ops_jobs_scheduled on ops_jobs (run_at) where status = 'queued' and claim_order is null;
comment on index ops_jobs_scheduled is 'Jobs that fall due: they get their claim_order then, and no claim reads past them before.';
comment on index ops_jobs_due is 'Claims of the release before; to be dropped by the next.';

create function ops_order_job() returns trigger
language plpgsql
as $$
begin
  new.claim_order := case
    when new.run_at <= clock_timestamp() then new.run_at - new.priority * interval '5 minutes'
  end;
  return new;
end
$$;
comment on function ops_order_job() is 'Gives a due job its place among the claims. A step of priority is worth 5 minutes of waiting, so that nothing starves.';

-- Set after the column was added, so that the jobs of before have none. A job that is due at once, with priority 0, is in its
-- place by the default and never enters the function.
alter table ops_jobs alter column claim_order set default now();
create trigger ops_jobs_order_insert before insert on ops_jobs
for each row when (
  new.priority <> 0
  or new.claim_order is distinct from new.run_at
  or new.run_at > clock_timestamp()
)
execute function ops_order_job();
-- After ops_jobs_guard_update, which sets run_at at a replay.
create trigger ops_jobs_order_update before update on ops_jobs
for each row when (new.status = 'queued' and (
  old.status <> 'queued'
  or old.run_at is distinct from new.run_at
  or old.priority is distinct from new.priority
  or old.claim_order is distinct from new.claim_order
))
execute function ops_order_job();

create function ops_transition_kind(from_status text, to_status text) returns text
language sql immutable parallel safe
as $$
  -- Says what ops_job_transitions says, without reading it; a test compares them. The busiest come first.
  select case from_status
    when 'queued' then case to_status when 'running' then 'running' when 'failed' then 'failed' when 'aborted' then 'aborted' end
    when 'running' then case to_status
      when 'succeeded' then 'succeeded' when 'queued' then 'retry_scheduled' when 'failed' then 'failed'
      when 'aborted' then 'aborted' when 'waiting' then 'gate_opened'
    end
    when 'waiting' then case to_status when 'queued' then 'resumed' when 'aborted' then 'aborted' end
    when 'failed' then case to_status when 'queued' then 'replayed' end
    when 'aborted' then case to_status when 'queued' then 'replayed' end
  end
$$;
comment on function ops_transition_kind(text, text) is 'The event of a change of status; null where it is illegal.';

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
comment on function ops_guard_job() is
  'Refuses illegal changes of status and of what may never change, sets what follows from a legal one, and notes its events in moved.';

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

create function ops_record_transitions() returns trigger
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
comment on function ops_record_transitions() is 'Writes the events of the rows that moved, for all rows of a statement at once.';

create trigger ops_jobs_record_update after update on ops_jobs
referencing new table as new_rows
for each statement execute function ops_record_transitions();

-- Housekeeping leaves word of itself, whoever does it.
create table ops_sweeps (
  name text not null,
  ran_at timestamptz,
  actor text,
  reached timestamptz not null default clock_timestamp(),
  constraint ops_sweeps_pkey primary key (name)
) with (fillfactor = 50);
comment on table ops_sweeps is 'What the fleet does for itself, one row each: when it was last done, and by whom.';
comment on column ops_sweeps.name is 'sweep: lost and outlived jobs are taken back. seal: the histories of ended jobs are sealed.';
comment on column ops_sweeps.ran_at is 'When it was last done; null: not yet.';
comment on column ops_sweeps.actor is 'Who did it.';
comment on column ops_sweeps.reached is 'Up to which instant the events were looked at (seal).';
insert into ops_sweeps (name) values ('sweep'), ('seal');

create function ops_note_sweep(actor text) returns void
language sql security definer set search_path = public, pg_temp
as $$
  -- Who finds the row locked leaves it: somebody else is noting the same just now.
  update ops_sweeps s set ran_at = clock_timestamp(), actor = ops_note_sweep.actor
  where s.name = (select l.name from ops_sweeps l where l.name = 'sweep' for update skip locked)
$$;
comment on function ops_note_sweep(text) is 'Notes that the sweep was done just now.';

-- Seals: a hash of a job's history that an alteration of it does not fit.
create table ops_seals (
  job_id uuid not null,
  seq int not null,
  hashes bytea[] not null,
  sealed_at timestamptz not null default clock_timestamp(),
  constraint ops_seals_pkey primary key (job_id, seq)
);
comment on table ops_seals is 'Hashes of the events of ended jobs, one row each time that a job ends; opsctl verify computes them again.';
comment on column ops_seals.job_id is 'The job.';
comment on column ops_seals.seq is 'The number of the last event that it covers.';
comment on column ops_seals.hashes is 'The hash of each event since the seal before, in order; the last one covers all before it.';
comment on column ops_seals.sealed_at is 'When it was made.';

create function ops_event_hash(previous bytea, e ops_job_events) returns bytea
language sql stable parallel safe
as $$
  -- Each value with its length, so that no two histories look the same; columns added later do not count.
  select sha256(coalesce(previous, '') || record_send(row(
    (e).job_id, (e).seq, (e).at, (e).kind, (e).attempt, (e).runner_id, (e).actor, (e).data
  )))
$$;
comment on function ops_event_hash(bytea, ops_job_events) is 'The hash of an event: SHA-256 of the hash of the event before it and of its own columns.';

create function ops_event_hashes(job_id uuid, after_seq int, until_seq int, previous bytea) returns bytea[]
language plpgsql stable parallel safe
as $$
#variable_conflict use_column
declare
  e ops_job_events;
  hash bytea := previous;
  hashes bytea[] := '{}';
begin
  for e in
    select * from ops_job_events o
    where o.job_id = ops_event_hashes.job_id and o.seq > after_seq and o.seq <= until_seq
    order by o.seq
  loop
    hash := ops_event_hash(hash, e);
    hashes := hashes || hash;
  end loop;
  return hashes;
end
$$;
comment on function ops_event_hashes(uuid, int, int, bytea) is 'The hashes of a job''s events after one number up to another, each linked to the one before.';

create function ops_seal(actor text) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  -- A page takes a fraction of a second, whatever is in it: so many jobs, and together so many events.
  most_jobs constant int := 1000;
  most_events constant int := 20000;
  -- Not sealed at all: it would take longer than a statement may.
  longest constant int := 100000;
  since timestamptz;
  until timestamptz;
  found int;
  sealed int;
  last_at timestamptz;
begin
  -- One at a time; who comes second leaves it to the first.
  select s.reached into since from ops_sweeps s where s.name = 'seal' for update skip locked;
  until := least(clock_timestamp() - interval '1 second', since + interval '10 seconds');
  if since is null or until <= since then
    return null;
  end if;
  -- Back by 10 s, since what was written first may be committed last.
  with ended as materialized (
    select e.job_id, max(e.seq) as seq, max(e.at) as at
    from ops_job_events e
    where e.at > since - interval '10 seconds' and e.at <= until
      and e.kind in ('succeeded', 'failed', 'dead_lettered', 'aborted')
      and e.seq <= longest
      and not exists (select from ops_seals s where s.job_id = e.job_id and s.seq >= e.seq)
    group by e.job_id
    order by 3, 1
    limit most_jobs
  ),
  page as materialized (
    select p.job_id, p.seq, p.at
    from (select e.*, sum(e.seq) over (order by e.at, e.job_id) as events from ended e) p
    where p.events <= most_events or p.events = p.seq
  ),
  sealing as (
    insert into ops_seals (job_id, seq, hashes)
    select p.job_id, p.seq, ops_event_hashes(p.job_id, coalesce(last.seq, 0), p.seq, last.hash)
    from page p
    left join lateral (
      select s.seq, s.hashes[cardinality(s.hashes)] as hash
      from ops_seals s where s.job_id = p.job_id order by s.seq desc limit 1
    ) last on true
  )
  select (select count(*) from ended), count(*), max(page.at) into found, sealed, last_at from page;
  update ops_sweeps s
  set reached = case when found = most_jobs or sealed < found then greatest(since, last_at) else until end,
    ran_at = clock_timestamp(), actor = ops_seal.actor
  where s.name = 'seal';
  return sealed;
end
$$;
comment on function ops_seal(text) is
  'Seals a page of the jobs that ended in the next 10 s that were not looked at yet; gives how many, null when nothing is left to look at.';

create trigger ops_seals_append_only before update or delete on ops_seals
for each row execute function ops_refuse_change();
create trigger ops_seals_no_truncate before truncate on ops_seals
for each statement execute function ops_refuse_change();
