-- Sealing reads the ends of jobs by their index, each twice, whatever else was written about the same time; before, each page
-- looked through all events of 20 s.
--
-- Only adds. Takes the lock on ops_job_events for as long as the index over the ends is built.

set local statement_timeout = '15min';

create index ops_job_events_ends on ops_job_events (at) where kind in ('succeeded', 'failed', 'dead_lettered', 'aborted');
comment on index ops_job_events_ends is 'Ends of jobs in the order of their instants: ops_seal walks along it.';

comment on column ops_sweeps.name is 'sweep: lost and outlived jobs are taken back. seal: the histories of ended jobs are sealed. seal_again: the same 10 s later, for what was written before and committed after.';
insert into ops_sweeps (name, reached)
select 'seal_again', s.reached - interval '10 seconds' from ops_sweeps s where s.name = 'seal';

create or replace function ops_seal(actor text) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  -- A page takes a fraction of a second, whatever is in it: so many jobs, and together so many events.
  most_jobs constant int := 10000;
  most_events constant int := 20000;
  -- Looked at, most of which another page may have sealed.
  most_seen constant int := 50000;
  -- Not sealed at all: it would take longer than a statement may.
  longest constant int := 100000;
  walk text;
  since timestamptz;
  until timestamptz;
  seen int;
  seen_at timestamptz;
  unsealed int;
  ended int;
  sealed int;
  last_at timestamptz;
begin
  -- One at a time; who comes second leaves it to the first.
  perform from ops_sweeps s where s.name = 'seal' for update skip locked;
  if not found then
    return null;
  end if;
  -- What was written first may be committed last: whoever walks close behind the present is followed by another. Who is further
  -- from where it should be goes on.
  select s.name, s.reached, w.until into walk, since, until
  from ops_sweeps s
  join (values
    ('seal', clock_timestamp() - interval '1 second'),
    ('seal_again', clock_timestamp() - interval '10 seconds')
  ) w (name, until) on w.name = s.name and w.until > s.reached
  order by w.until - s.reached desc
  limit 1;
  if walk is null then
    return null;
  end if;
  with seen as materialized (
    select e.job_id, e.seq, e.at
    from ops_job_events e
    where e.at > since and e.at <= until
      and e.kind in ('succeeded', 'failed', 'dead_lettered', 'aborted')
      and e.seq <= longest
    order by e.at
    limit most_seen
  ),
  ends as materialized (
    select e.*
    from seen e
    -- One by one, whatever the planner expects: together, all seals there are would be read.
    where not exists (select from ops_seals s where s.job_id = e.job_id and s.seq >= e.seq offset 0)
    order by e.at
    limit most_jobs
  ),
  ended as materialized (
    select e.job_id, max(e.seq) as seq, max(e.at) as at from ends e group by e.job_id
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
  select
    (select count(*) from seen), (select max(seen.at) from seen),
    (select count(*) from ends), (select count(*) from ended), count(*), max(page.at)
  into seen, seen_at, unsealed, ended, sealed, last_at
  from page;
  update ops_sweeps s
  set
    -- Others may have ended in the very instant of the last one.
    reached = case
      when unsealed = most_jobs or sealed < ended then greatest(since, last_at - interval '1 microsecond')
      when seen = most_seen then greatest(since + interval '1 microsecond', seen_at - interval '1 microsecond')
      else until
    end,
    ran_at = clock_timestamp(),
    actor = ops_seal.actor
  where s.name = walk;
  return sealed;
end
$$;

create or replace function ops_retention_horizon(keep interval) returns timestamptz
language sql stable
as $$
  -- Nothing goes before its history was due to be sealed: a seal made later would have nothing to fit.
  -- least() passes nulls by, so a keep of null is asked for.
  select case when ops_retention_horizon.keep is not null then
    least(
      now() - ops_retention_horizon.keep,
      (select min(o.reached) from ops_sweeps o where o.name in ('seal', 'seal_again')) - interval '20 seconds'
    )
  end
$$;
