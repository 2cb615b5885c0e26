-- Claims find the jobs of their own types without reading past those of others: a type that nobody serves, or one that is full,
-- may have any number queued.
--
-- Only adds. Takes the lock on ops_jobs for as long as the index over the due jobs is built. "C", because only this index is to
-- be used by who asks for it so: a scan in claiming order must stay the plan of a claim over all of a runner's types.
--
-- And seals go by larger pages: each page looks for its jobs among all events of some seconds, so that after an end of very many
-- jobs at once small pages looked through the same events over and over. How much a page hashes is bounded as before.

set local statement_timeout = '15min';

create index ops_jobs_claims_of_type on ops_jobs ((coalesce(stage_type, job_type) collate "C"), claim_order, id)
where status = 'queued' and claim_order is not null;
comment on index ops_jobs_claims_of_type is 'Claims of one type, and where the jobs of each type lie among all.';

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
