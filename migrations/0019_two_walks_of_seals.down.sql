create or replace function ops_retention_horizon(keep interval) returns timestamptz
language sql stable
as $$
  -- Nothing goes before its history was due to be sealed: a seal made later would have nothing to fit.
  -- least() passes nulls by, so a keep of null is asked for.
  select case when ops_retention_horizon.keep is not null then
    least(now() - ops_retention_horizon.keep, (select o.reached from ops_sweeps o where o.name = 'seal') - interval '20 seconds')
  end
$$;

create or replace function ops_seal(actor text) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  -- A page takes a fraction of a second, whatever is in it: so many jobs, and together so many events.
  most_jobs constant int := 10000;
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

delete from ops_sweeps where name = 'seal_again';
comment on column ops_sweeps.name is 'sweep: lost and outlived jobs are taken back. seal: the histories of ended jobs are sealed.';
drop index ops_job_events_ends;
