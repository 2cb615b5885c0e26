-- Figures that cost nothing to read: every transition leaves a small row, in its own transaction, and a fold adds these up.
--
-- How a figure travels:
--   1. ops_count_new_jobs and ops_count_transitions (after the statement) append one row to ops_count_deltas for each queue,
--      job type and kind of change that the statement made. Nobody updates a shared counter, so nobody waits for anybody.
--   2. ops_fold_counts, called by whoever keeps house or reads, moves the deltas into ops_count_hours, ops_count_totals and
--      ops_count_depths, one at a time.
--   3. Readers add what is not folded yet to what is: the views ops_job_counts, ops_job_totals and ops_job_depths.
-- The triggers of step 1 are switched off until a program with FEATURE_METRICS on asks for them (ops_count_jobs).
-- Takes the lock on ops_jobs for as long as one small index over the queued jobs is built.

set local statement_timeout = '15min';

alter table ops_jobs add column left_status text;
comment on column ops_jobs.left_status is 'The status before it failed or was aborted, as far as jobs were counted then. Kept by the database.';

-- In its place comes one more that a queued job must be entered in.
drop index if exists ops_jobs_due;
create index ops_jobs_depths on ops_jobs (queue, job_type, run_at) where status = 'queued';
comment on index ops_jobs_depths is 'The oldest due job of a queue and job type, and the count of the queued ones from which counting begins.';

-- The trace that a job belongs to, as its caller had it (W3C Trace Context). Any writer may set ops.traceparent in its
-- transaction; programs give the columns themselves.
alter table ops_jobs add column traceparent text, add column tracestate text;
-- Set after the columns were added, so that the jobs of before have none.
alter table ops_jobs
  alter column traceparent set default nullif(current_setting('ops.traceparent', true), ''),
  alter column tracestate set default nullif(current_setting('ops.tracestate', true), '');
comment on column ops_jobs.traceparent is 'The span that caused the job (W3C traceparent); its attempts are children of it. Null: none. By default the setting ops.traceparent.';
comment on column ops_jobs.tracestate is 'What vendors of tracing add to traceparent (W3C tracestate). By default the setting ops.tracestate.';

create function ops_refuse_trace() returns trigger
language plpgsql
as $$
begin
  raise exception 'traceparent is no version 00 traceparent, or tracestate is longer than 512 visible characters' using
    errcode = 'check_violation', constraint = 'ops_jobs_trace',
    hint = 'See https://www.w3.org/TR/trace-context/; leave both out where there is no trace.';
end
$$;
comment on function ops_refuse_trace() is 'Refuses a trace that no program could hand on.';
-- A job without a trace never enters the function: null is not true.
create trigger ops_jobs_guard_trace before insert or update of traceparent, tracestate on ops_jobs
for each row when (
  new.traceparent !~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$'
  or (new.tracestate is not null and (new.traceparent is null or new.tracestate !~ '^[ -~]+$' or length(new.tracestate) > 512))
)
execute function ops_refuse_trace();

create table ops_counting (
  singleton boolean not null default true,
  since timestamptz,
  wanted_until timestamptz,
  constraint ops_counting_pkey primary key (singleton),
  constraint ops_counting_one_row check (singleton)
) with (fillfactor = 50);
comment on table ops_counting is 'Whether transitions are counted; one row. Stop it with ops_stop_counting().';
comment on column ops_counting.singleton is 'Always true: there is one row.';
comment on column ops_counting.since is 'Since when every transition is counted; null: never yet.';
comment on column ops_counting.wanted_until is 'Counting ends by itself then, unless a program with FEATURE_METRICS on asks again before; null: it is stopped.';
insert into ops_counting default values;

create table ops_count_deltas (
  at timestamptz not null,
  queue text not null,
  job_type text not null,
  from_status text,
  to_status text,
  kinds text not null,
  jobs int not null
) with (
  -- Rows live for seconds. Giving pages back to the system would lock writers out for a moment.
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000, vacuum_truncate = false
);
comment on table ops_count_deltas is 'What statements changed and no fold has added up yet: one row for each statement, queue, job type and kind of change.';
comment on column ops_count_deltas.at is 'When the last of them changed.';
comment on column ops_count_deltas.queue is 'The queue.';
comment on column ops_count_deltas.job_type is 'The job type.';
comment on column ops_count_deltas.from_status is 'The status that they left; null: new, or ended before.';
comment on column ops_count_deltas.to_status is 'The status that they have now; null: they left this queue.';
comment on column ops_count_deltas.kinds is 'The kinds of their events, with spaces between.';
comment on column ops_count_deltas.jobs is 'How many jobs.';

create table ops_count_hours (
  hour timestamptz not null,
  queue text not null,
  job_type text not null,
  kind text not null,
  jobs bigint not null,
  constraint ops_count_hours_pkey primary key (hour, queue, job_type, kind)
);
comment on table ops_count_hours is 'How often each kind of event happened, by hour; kept for 400 days. Read ops_job_counts, which knows what is not folded yet.';
comment on column ops_count_hours.hour is 'The hour, by its beginning, UTC.';
comment on column ops_count_hours.queue is 'The queue.';
comment on column ops_count_hours.job_type is 'The job type.';
comment on column ops_count_hours.kind is 'The kind of the event.';
comment on column ops_count_hours.jobs is 'How often.';

create table ops_count_totals (
  queue text not null,
  job_type text not null,
  kind text not null,
  jobs bigint not null,
  last_at timestamptz not null,
  constraint ops_count_totals_pkey primary key (queue, job_type, kind)
) with (fillfactor = 50);
comment on table ops_count_totals is 'How often each kind of event has happened since jobs are counted. Read ops_job_totals, which knows what is not folded yet.';
comment on column ops_count_totals.queue is 'The queue.';
comment on column ops_count_totals.job_type is 'The job type.';
comment on column ops_count_totals.kind is 'The kind of the event.';
comment on column ops_count_totals.jobs is 'How often.';
comment on column ops_count_totals.last_at is 'When last.';

create table ops_count_depths (
  queue text not null,
  job_type text not null,
  status text not null,
  jobs bigint not null,
  constraint ops_count_depths_pkey primary key (queue, job_type, status)
) with (fillfactor = 50);
comment on table ops_count_depths is 'How many jobs are not over. Read ops_job_depths, which knows what is not folded yet.';
comment on column ops_count_depths.queue is 'The queue.';
comment on column ops_count_depths.job_type is 'The job type.';
comment on column ops_count_depths.status is 'queued, running or waiting.';
comment on column ops_count_depths.jobs is 'How many.';

create function ops_note_left_status() returns trigger
language plpgsql
as $$
begin
  new.left_status := old.status;
  return new;
end
$$;
comment on function ops_note_left_status() is 'Keeps what a job was before it failed or was aborted, for the count: no kind of event tells it.';
-- After ops_jobs_advance and ops_jobs_guard_update, which decide the status.
create trigger ops_jobs_left_status before update on ops_jobs
for each row when (new.status in ('failed', 'aborted') and old.status is distinct from new.status)
execute function ops_note_left_status();

create function ops_count_new_jobs() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  insert into ops_count_deltas (at, queue, job_type, from_status, to_status, kinds, jobs)
  select max(n.created_at), n.queue, n.job_type, null, 'queued', 'queued', count(*)
  from new_rows n
  where exists (select from ops_counting c where c.wanted_until > clock_timestamp())
  group by n.queue, n.job_type;
  return null;
end
$$;
comment on function ops_count_new_jobs() is 'Counts new jobs: one row a statement, queue and job type.';
create trigger ops_jobs_count_insert after insert on ops_jobs
referencing new table as new_rows
for each statement execute function ops_count_new_jobs();

create function ops_count_transitions() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  insert into ops_count_deltas (at, queue, job_type, from_status, to_status, kinds, jobs)
  select
    max(n.updated_at), n.queue, n.job_type,
    -- The kind tells the status before, but for these two.
    case
      when n.status in ('failed', 'aborted') then n.left_status
      when n.status = 'running' then 'queued'
      when n.status <> 'queued' then 'running'
      when n.moved like '%replayed' then null
      when n.moved ~ '(resumed|gate_approved)$' then 'waiting'
      else 'running'
    end,
    n.status, n.moved, count(*)
  from new_rows n
  where n.moved is not null and exists (select from ops_counting c where c.wanted_until > clock_timestamp())
  group by n.queue, n.job_type, 4, n.status, n.moved;
  return null;
end
$$;
comment on function ops_count_transitions() is 'Counts the rows that moved: one row a statement, queue, job type and kind of change.';
create trigger ops_jobs_count_update after update on ops_jobs
referencing new table as new_rows
for each statement execute function ops_count_transitions();

create function ops_count_queue_change() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  -- By the status before: a transition in the same statement is counted in the new queue.
  insert into ops_count_deltas (at, queue, job_type, from_status, to_status, kinds, jobs)
  select clock_timestamp(), m.queue, new.job_type, m.from_status, m.to_status, '', 1
  from (values (old.queue, old.status, null), (new.queue, null, old.status)) as m (queue, from_status, to_status)
  where exists (select from ops_counting c where c.wanted_until > clock_timestamp());
  return null;
end
$$;
comment on function ops_count_queue_change() is 'Keeps the depths right when somebody moves a job to another queue.';
create trigger ops_jobs_count_queue after update of queue on ops_jobs
for each row when (old.queue is distinct from new.queue)
execute function ops_count_queue_change();

alter table ops_jobs
  disable trigger ops_jobs_left_status,
  disable trigger ops_jobs_count_insert,
  disable trigger ops_jobs_count_update,
  disable trigger ops_jobs_count_queue;

create function ops_fold_counts(most int default 20000) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  folded int;
begin
  -- One at a time; who comes second leaves it to the first.
  perform from ops_counting c for update skip locked;
  if not found then
    return 0;
  end if;
  with taken as (
    delete from ops_count_deltas d
    where d.ctid = any (array(select l.ctid from ops_count_deltas l limit most))
    returning d.*
  ),
  happened as (
    select t.at, t.queue, t.job_type, k.kind, t.jobs
    from taken t
    cross join lateral unnest(string_to_array(t.kinds, ' ')) as k (kind)
  ),
  hours as (
    insert into ops_count_hours as c (hour, queue, job_type, kind, jobs)
    select date_trunc('hour', h.at, 'UTC'), h.queue, h.job_type, h.kind, sum(h.jobs)
    from happened h
    group by 1, 2, 3, 4
    on conflict (hour, queue, job_type, kind) do update set jobs = c.jobs + excluded.jobs
  ),
  totals as (
    insert into ops_count_totals as c (queue, job_type, kind, jobs, last_at)
    select h.queue, h.job_type, h.kind, sum(h.jobs), max(h.at)
    from happened h
    group by 1, 2, 3
    on conflict (queue, job_type, kind) do update
    set jobs = c.jobs + excluded.jobs, last_at = greatest(c.last_at, excluded.last_at)
  ),
  depths as (
    insert into ops_count_depths as c (queue, job_type, status, jobs)
    select t.queue, t.job_type, s.status, sum(s.sign * t.jobs)
    from taken t
    cross join lateral (values (t.from_status, -1), (t.to_status, 1)) as s (status, sign)
    where s.status in ('queued', 'running', 'waiting')
    group by 1, 2, 3
    on conflict (queue, job_type, status) do update set jobs = c.jobs + excluded.jobs
  )
  select count(*) into folded from taken;
  delete from ops_count_hours c where c.hour < now() - interval '400 days';
  return folded;
end
$$;
comment on function ops_fold_counts(int) is 'Adds a page of the deltas to the figures; gives how many. Any number may call it at once: one works.';

create function ops_count_jobs() returns boolean
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  -- Long enough for a fleet that is only woken by a daily cron job.
  wanted_for constant interval := '26 hours';
  -- So much earlier than it ends, counting is no longer taken up where it was: a statement under way might have missed it.
  margin constant interval := '1 hour';
  until timestamptz;
begin
  select c.wanted_until into until from ops_counting c;
  if until > clock_timestamp() + margin then
    -- Once an hour is enough, so that the row that every statement reads is seldom written.
    if until < clock_timestamp() + wanted_for - interval '1 hour' then
      update ops_counting c set wanted_until = clock_timestamp() + wanted_for
      where c.wanted_until > clock_timestamp() + margin;
    end if;
    return true;
  end if;

  -- From here on no statement changes a job until this transaction ends, so that the figures begin right.
  perform set_config('lock_timeout', '2s', true);
  lock table ops_jobs in share row exclusive mode;
  -- Waits for a fold that is under way, and keeps the next one out.
  select c.wanted_until into until from ops_counting c for update;
  if until > clock_timestamp() + margin then
    return true;
  end if;
  while ops_fold_counts() > 0 loop
    -- What was counted before the break stays counted.
  end loop;
  alter table ops_jobs
    enable trigger ops_jobs_left_status,
    enable trigger ops_jobs_count_insert,
    enable trigger ops_jobs_count_update,
    enable trigger ops_jobs_count_queue;
  delete from ops_count_depths;
  -- One arm for each index.
  insert into ops_count_depths (queue, job_type, status, jobs)
  select j.queue, j.job_type, 'queued', count(*) from ops_jobs j where j.status = 'queued' group by 1, 2
  union all
  select j.queue, j.job_type, 'running', count(*) from ops_jobs j where j.status = 'running' group by 1, 2
  union all
  select j.queue, j.job_type, 'waiting', count(*) from ops_jobs j where j.status = 'waiting' group by 1, 2;
  update ops_counting c set since = clock_timestamp(), wanted_until = clock_timestamp() + wanted_for;
  return true;
end
$$;
comment on function ops_count_jobs() is
  'Has every transition counted from now on, for 26 hours beyond the last call. Begins, or begins anew, under a short lock on ops_jobs.';

create function ops_stop_counting() returns void
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  alter table ops_jobs
    disable trigger ops_jobs_left_status,
    disable trigger ops_jobs_count_insert,
    disable trigger ops_jobs_count_update,
    disable trigger ops_jobs_count_queue;
  update ops_counting c set wanted_until = null;
end
$$;
comment on function ops_stop_counting() is
  'Has nothing counted any more, until a program with FEATURE_METRICS on asks again. What was counted stays.';

create view ops_job_counts as
select c.hour, c.queue, c.job_type, c.kind, sum(c.jobs)::bigint as jobs
from (
  select h.hour, h.queue, h.job_type, h.kind, h.jobs from ops_count_hours h
  union all
  select date_trunc('hour', d.at, 'UTC'), d.queue, d.job_type, k.kind, d.jobs
  from ops_count_deltas d
  cross join lateral unnest(string_to_array(d.kinds, ' ')) as k (kind)
) c
group by c.hour, c.queue, c.job_type, c.kind;
comment on view ops_job_counts is 'How often each kind of event happened, by hour, up to now: what the transitions themselves counted.';
comment on column ops_job_counts.hour is 'The hour, by its beginning, UTC.';
comment on column ops_job_counts.queue is 'The queue.';
comment on column ops_job_counts.job_type is 'The job type.';
comment on column ops_job_counts.kind is 'The kind of the event.';
comment on column ops_job_counts.jobs is 'How often.';

create view ops_job_totals as
select c.queue, c.job_type, c.kind, sum(c.jobs)::bigint as jobs, max(c.last_at) as last_at
from (
  select t.queue, t.job_type, t.kind, t.jobs, t.last_at from ops_count_totals t
  union all
  select d.queue, d.job_type, k.kind, d.jobs, d.at
  from ops_count_deltas d
  cross join lateral unnest(string_to_array(d.kinds, ' ')) as k (kind)
) c
group by c.queue, c.job_type, c.kind;
comment on view ops_job_totals is 'How often each kind of event has happened since jobs are counted, and when last.';
comment on column ops_job_totals.queue is 'The queue.';
comment on column ops_job_totals.job_type is 'The job type.';
comment on column ops_job_totals.kind is 'The kind of the event.';
comment on column ops_job_totals.jobs is 'How often.';
comment on column ops_job_totals.last_at is 'When last.';

create view ops_job_depths as
select c.queue, c.job_type, c.status, sum(c.jobs)::bigint as jobs
from (
  select d.queue, d.job_type, d.status, d.jobs from ops_count_depths d
  union all
  select d.queue, d.job_type, s.status, s.sign * d.jobs
  from ops_count_deltas d
  cross join lateral (values (d.from_status, -1), (d.to_status, 1)) as s (status, sign)
  where s.status in ('queued', 'running', 'waiting')
) c
group by c.queue, c.job_type, c.status
having sum(c.jobs) <> 0;
comment on view ops_job_depths is 'How many jobs are not over, by queue, job type and status, without counting them: ops_queue_depth counts.';
comment on column ops_job_depths.queue is 'The queue.';
comment on column ops_job_depths.job_type is 'The job type.';
comment on column ops_job_depths.status is 'queued, running or waiting.';
comment on column ops_job_depths.jobs is 'How many.';

-- A tick leaves word of itself, as a sweep does.
insert into ops_sweeps (name) values ('tick');
comment on column ops_sweeps.name is
  'sweep: lost and outlived jobs are taken back. seal: the histories of ended jobs are sealed. tick: somebody called POST /tick.';
create function ops_note_tick(actor text) returns void
language sql security definer set search_path = public, pg_temp
as $$
  -- Who finds the row locked leaves it: somebody else is noting the same just now.
  update ops_sweeps s set ran_at = clock_timestamp(), actor = ops_note_tick.actor
  where s.name = (select l.name from ops_sweeps l where l.name = 'tick' for update skip locked)
$$;
comment on function ops_note_tick(text) is 'Notes that POST /tick was called just now.';

create function ops_last_backup() returns table (backup_at timestamptz, drill_at timestamptz, drill_ok boolean)
language plpgsql stable security definer set search_path = public, pg_temp
as $$
begin
  -- These tables come with a later migration; until then there is nothing to tell.
  if to_regclass('ops_backups') is not null then
    execute 'select max(finished_at) from ops_backups' into backup_at;
  end if;
  if to_regclass('ops_drills') is not null then
    execute 'select finished_at, ok from ops_drills where finished_at is not null order by finished_at desc limit 1'
    into drill_at, drill_ok;
  end if;
  return next;
end
$$;
comment on function ops_last_backup() is 'When the last backup was made, and the last drill, and whether that one proved equal; null where there was none.';
