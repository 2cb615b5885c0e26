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

comment on function ops_seal(text) is
'Seals a page of the jobs that ended in the next 10 s that were not looked at yet; gives how many, null when nothing is left to look at.';
