-- Notion: the outcome of finished jobs is published as pages of a database there, one page a job.
--
-- The statement that writes the event of an end notes the job too, by a trigger of its own, so that nothing is lost and nobody
-- waits for Notion. Unless a program with NOTION_ENABLED has asked for it within 26 hours, the trigger looks at one row and is done.
-- A row says only that its job is to be published; what is published is read from the job when it is sent, so that the newest
-- outcome goes and never an older one. Programs take one row at a time under a lease, with the instant from which on they may
-- call: those instants are handed out here, 350 ms apart, so that the whole fleet keeps Notion's limit. No token stands here.
--
-- Only adds. The release before reads none of it; its jobs are noted all the same while a newer program asks for it.

create table ops_notion (
  one boolean not null default true,
  asked_at timestamptz not null default clock_timestamp(),
  next_request_at timestamptz not null default clock_timestamp(),
  failures int not null default 0,
  published bigint not null default 0,
  last_published_at timestamptz,
  last_error text,
  last_error_at timestamptz,
  constraint ops_notion_pkey primary key (one),
  constraint ops_notion_one_row check (one)
) with (fillfactor = 10);
comment on table ops_notion is 'How publishing to Notion fares; at most one row, none before a program with NOTION_ENABLED has asked for it.';
comment on column ops_notion.one is 'True: there is one row at most.';
comment on column ops_notion.asked_at is 'When a program last asked for it; 26 hours later, enough for a daily cron job, jobs are no longer noted.';
comment on column ops_notion.next_request_at is 'The next request may not be made before this; Notion''s Retry-After moves it.';
comment on column ops_notion.failures is 'How often in a row Notion did not answer, or was busy.';
comment on column ops_notion.published is 'How many outcomes were published.';
comment on column ops_notion.last_published_at is 'When the last of them was.';
comment on column ops_notion.last_error is 'Why a request last failed.';
comment on column ops_notion.last_error_at is 'When that was.';

create table ops_notion_keys (
  key text not null,
  database_id text not null,
  seen_at timestamptz not null default clock_timestamp(),
  check_at timestamptz not null,
  checked_at timestamptz,
  fault text,
  fault_at timestamptz,
  constraint ops_notion_keys_pkey primary key (key)
) with (fillfactor = 50);
comment on table ops_notion_keys is 'What programs publish with, and whether it is good for that. Whoever bears one with a fault publishes nothing; others go on.';
comment on column ops_notion_keys.key is 'A part of a digest of the token, the database''s id and the address.';
comment on column ops_notion_keys.database_id is 'The database in Notion.';
comment on column ops_notion_keys.seen_at is 'When a program with it last looked for work.';
comment on column ops_notion_keys.check_at is 'While it was not found good: when it is looked at again.';
comment on column ops_notion_keys.checked_at is 'When it was last found good; null: never.';
comment on column ops_notion_keys.fault is 'What is wrong with it, and what to do; null: nothing that is known.';
comment on column ops_notion_keys.fault_at is 'Since when.';

create table ops_notion_pages (
  job_id uuid not null,
  state text not null default 'pending',
  noted_seq int not null,
  again boolean not null default false,
  page_id text,
  database_id text,
  attempts int not null default 0,
  attempts_before int not null default 0,
  due_at timestamptz not null default clock_timestamp(),
  sender text,
  last_status int,
  last_error text,
  noted_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  -- No foreign key: a job that moves waits for nobody who publishes. The row leaves with the job, by a trigger.
  constraint ops_notion_pages_pkey primary key (job_id),
  constraint ops_notion_pages_state_known check (state in ('pending', 'published', 'dead', 'superseded')),
  constraint ops_notion_pages_ended check ((state = 'pending') = (ended_at is null))
) with (fillfactor = 70);
comment on table ops_notion_pages is 'Jobs whose outcome is to be published, or is, one row a job. Publish one again with ops_retry_notion(job).';
comment on column ops_notion_pages.job_id is 'The job.';
comment on column ops_notion_pages.state is 'pending; published; dead: refused for good; superseded: its job is at work again, and is noted at its next end.';
comment on column ops_notion_pages.noted_seq is 'The number of the event of its newest end.';
comment on column ops_notion_pages.again is 'Whether somebody who had lost it may have published an older outcome over the newest: then that is sent once more.';
comment on column ops_notion_pages.page_id is 'Its page; null: not known, and looked for before one is made.';
comment on column ops_notion_pages.database_id is 'The database that the page is in.';
comment on column ops_notion_pages.attempts is 'How often it was taken to be published; also the fence of what is recorded of that.';
comment on column ops_notion_pages.attempts_before is 'How many of them were before it last succeeded, was noted or was sent again by hand.';
comment on column ops_notion_pages.due_at is 'When it is to be published; while it is under way, when that counts as lost.';
comment on column ops_notion_pages.sender is 'Who is publishing it just now; null: nobody.';
comment on column ops_notion_pages.last_status is 'What Notion last answered; null: nothing.';
comment on column ops_notion_pages.last_error is 'Why the last attempt failed; null: it did not.';
comment on column ops_notion_pages.noted_at is 'When its job last ended.';
comment on column ops_notion_pages.ended_at is 'When it was published, given up or superseded.';
create index ops_notion_pages_due on ops_notion_pages (due_at) where state = 'pending';
comment on index ops_notion_pages_due is 'Senders: what is due next. Also how much waits.';
create index ops_notion_pages_dead on ops_notion_pages (ended_at) where state = 'dead';
comment on index ops_notion_pages_dead is 'What was refused, newest first; to be counted, and sent again by hand.';

create function ops_note_notion() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  if not exists (select from ops_notion n where n.asked_at > clock_timestamp() - interval '26 hours') then
    return null;
  end if;
  insert into ops_notion_pages as p (job_id, noted_seq)
  select e.job_id, max(e.seq) from new_rows e
  where e.kind in ('succeeded', 'failed', 'aborted')
  group by e.job_id
  order by e.job_id
  on conflict (job_id) do update
  set noted_seq = greatest(p.noted_seq, excluded.noted_seq), noted_at = excluded.noted_at, state = 'pending', ended_at = null,
    attempts_before = p.attempts,
    -- What is under way stays with its sender; its record finds that there is a newer outcome.
    due_at = case when p.sender is null then excluded.due_at else p.due_at end;
  return null;
end
$$;
comment on function ops_note_notion() is 'Notes jobs that end, in the transaction of that; unless somebody publishes, it is one look at one row.';
create trigger ops_job_events_note_notion after insert on ops_job_events
referencing new table as new_rows
for each statement execute function ops_note_notion();

create function ops_forget_notion() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  delete from ops_notion_pages p using old_rows o where p.job_id = o.id;
  return null;
end
$$;
comment on function ops_forget_notion() is 'What is known of a page leaves with its job; the page itself stays.';
create trigger ops_jobs_forget_notion after delete on ops_jobs
referencing old table as old_rows
for each statement execute function ops_forget_notion();

create function ops_claim_notion(sender text, key text, database_id text)
returns table (
  what text, wait_ms int, job_id uuid, attempt int, seq int, page_id text, look boolean, job_type text, queue text,
  status text, job_attempt int, error text, created_at timestamptz, finished_at timestamptz
)
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  -- Notion allows three a second on average.
  apart constant interval := '350 milliseconds';
  -- Nobody waits longer for his turn: whoever finds a longer line looks again later.
  longest_wait constant interval := '2 seconds';
  -- Longer than the wait and three requests may take.
  lease constant interval := '2 minutes';
  instant timestamptz := clock_timestamp();
  n ops_notion;
  k ops_notion_keys;
  p ops_notion_pages;
  j ops_jobs;
  slot timestamptz;
  requests int := 1;
  checks boolean;
begin
  -- First looks that lock nothing: mostly there is nothing to do.
  select * into n from ops_notion;
  if not found then
    insert into ops_notion default values on conflict do nothing;
    select * into n from ops_notion;
  end if;
  select * into k from ops_notion_keys o where o.key = ops_claim_notion.key;
  if least(n.asked_at, k.seen_at) < instant - interval '1 minute' then
    update ops_notion set asked_at = instant;
    update ops_notion_keys o set seen_at = instant where o.key = ops_claim_notion.key;
  end if;
  -- A copy that was restored is paused: it changes no page.
  if n.next_request_at > instant + longest_wait or exists (select from ops_fleet f where f.paused_at is not null) then
    return;
  end if;
  checks := k.key is null or k.checked_at is null or k.fault is not null;
  if checks and k.check_at > instant then
    return;
  end if;
  if not checks and not exists (select from ops_notion_pages o where o.state = 'pending' and o.due_at <= instant) then
    return;
  end if;

  select * into n from ops_notion for update;
  instant := clock_timestamp();
  slot := greatest(n.next_request_at, instant);
  if slot > instant + longest_wait then
    return;
  end if;
  if checks then
    if k.key is null then
      delete from ops_notion_keys o where o.seen_at < instant - interval '30 days';
    end if;
    -- Whoever is lost over it has kept nobody from it for long.
    insert into ops_notion_keys as o (key, database_id, check_at)
    values (ops_claim_notion.key, ops_claim_notion.database_id, instant + interval '30 seconds')
    on conflict (key) do update set check_at = excluded.check_at, seen_at = instant where o.check_at <= instant;
    if not found then
      return;
    end if;
  else
    for attempt_to_find in 1 .. 100 loop
      select * into p from ops_notion_pages o
      where o.state = 'pending' and o.due_at <= instant
      order by o.due_at limit 1
      for update skip locked;
      if not found then
        return;
      end if;
      select * into j from ops_jobs o where o.id = p.job_id and o.finished_at is not null;
      exit when found;
      update ops_notion_pages o set state = 'superseded', ended_at = instant, sender = null where o.job_id = p.job_id;
      p := null;
    end loop;
    if p.job_id is null then
      return;
    end if;
    -- A page may be there that this row knows nothing of: after an attempt whose end nobody recorded, or in a copy that was
    -- restored from before it was made.
    look := p.attempts > 0 or p.noted_at < (select max(c.at) from ops_fleet_changes c where c.change = 'resumed');
    page_id := p.page_id;
    if p.database_id is distinct from ops_claim_notion.database_id then
      page_id := null;
      look := look or p.database_id is not null;
    end if;
    look := page_id is null and coalesce(look, false);
    requests := case when look then 2 else 1 end;
    update ops_notion_pages o
    set attempts = o.attempts + 1, sender = ops_claim_notion.sender, due_at = instant + lease, again = false
    where o.job_id = p.job_id;
  end if;
  update ops_notion set next_request_at = slot + requests * apart;

  what := case when checks then 'check' else 'publish' end;
  wait_ms := ceil(extract(epoch from slot - instant) * 1000);
  job_id := p.job_id;
  attempt := p.attempts + 1;
  seq := p.noted_seq;
  job_type := j.job_type;
  queue := j.queue;
  status := j.status;
  job_attempt := j.attempt;
  error := left(j.error, 4000);
  created_at := j.created_at;
  finished_at := j.finished_at;
  return next;
end
$$;
comment on function ops_claim_notion(text, text, text) is
  'What is to be done at Notion next, after so many milliseconds: a check of what the caller publishes with, or an outcome, for two minutes. Also asks that ends of jobs be noted for 26 hours.';

create function ops_reserve_notion() returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  instant timestamptz := clock_timestamp();
  slot timestamptz;
begin
  update ops_notion n set next_request_at = greatest(n.next_request_at, instant) + interval '350 milliseconds'
  returning n.next_request_at - interval '350 milliseconds' into slot;
  return least(ceil(extract(epoch from coalesce(slot, instant) - instant) * 1000), 86400000);
end
$$;
comment on function ops_reserve_notion() is 'A turn for one more request: in how many milliseconds it may be made.';

create function ops_delay_notion(error text, retry_after int) returns interval
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  instant timestamptz := clock_timestamp();
  pause interval;
begin
  select make_interval(secs => case
    -- By the word of Notion, at most a day; else anywhere up to 1 s, 2 s, 4 s … 5 min, so that nobody comes back with others.
    when ops_delay_notion.retry_after is not null then least(ops_delay_notion.retry_after, 86400)
    else greatest(0.5, random() * least(power(2, least(n.failures, 20)), 300))
  end) into pause
  from ops_notion n for update;
  update ops_notion n
  set failures = n.failures + 1, next_request_at = greatest(n.next_request_at, instant + pause),
    last_error = ops_delay_notion.error, last_error_at = instant;
  return coalesce(pause, interval '1 second');
end
$$;
comment on function ops_delay_notion(text, int) is 'Lets nobody call Notion for a while, since it does not answer or is busy; gives for how long.';

create function ops_check_notion(key text, came text, error text, retry_after int) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  instant timestamptz := clock_timestamp();
begin
  -- Locked before the key, as by every claim.
  perform from ops_notion n for update;
  if came = 'right' then
    update ops_notion_keys k set checked_at = instant, fault = null, fault_at = null where k.key = ops_check_notion.key;
    update ops_notion n set failures = 0;
  elsif came = 'faulty' then
    update ops_notion_keys k
    set fault = ops_check_notion.error, fault_at = coalesce(k.fault_at, instant), check_at = instant + interval '5 minutes'
    where k.key = ops_check_notion.key;
    update ops_notion n set last_error = ops_check_notion.error, last_error_at = instant;
  else
    perform ops_delay_notion(ops_check_notion.error, ops_check_notion.retry_after);
    update ops_notion_keys k set check_at = instant where k.key = ops_check_notion.key;
  end if;
  return came;
end
$$;
comment on function ops_check_notion(text, text, text, int) is
  'Records whether a token and its database are good for publishing: right, faulty (looked at again after 5 minutes), or busy.';

create function ops_record_notion(
  sender text, job_id uuid, attempt int, seq int, came text, status int, error text, page_id text, database_id text,
  retry_after int
) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  instant timestamptz := clock_timestamp();
  p ops_notion_pages;
  pause interval;
  newer boolean;
begin
  select * into p from ops_notion_pages o where o.job_id = ops_record_notion.job_id for update;
  if not found then
    return 'late';
  end if;
  if p.attempts <> ops_record_notion.attempt or p.sender is distinct from ops_record_notion.sender then
    -- Its lease had run out. What it wrote since may lie over what is newer, which therefore goes once more.
    if came in ('published', 'unknown') then
      update ops_notion_pages o
      set again = true, page_id = coalesce(o.page_id, ops_record_notion.page_id),
        database_id = case when o.page_id is null then coalesce(ops_record_notion.database_id, o.database_id) else o.database_id end,
        state = 'pending', ended_at = null, due_at = case when o.sender is null then instant else o.due_at end
      where o.job_id = p.job_id;
    end if;
    return 'late';
  end if;
  newer := p.again or p.noted_seq > ops_record_notion.seq;
  if came = 'published' then
    update ops_notion_pages o
    set page_id = ops_record_notion.page_id, database_id = ops_record_notion.database_id, sender = null,
      last_status = ops_record_notion.status, last_error = null, attempts_before = o.attempts, due_at = instant,
      again = false, state = case when newer then 'pending' else 'published' end, ended_at = case when newer then null else instant end
    where o.job_id = p.job_id;
    update ops_notion n set failures = 0, published = n.published + 1, last_published_at = instant;
    return 'published';
  end if;
  -- Of this one alone: anywhere up to 5 s, 10 s, 20 s … 1 h.
  pause := make_interval(secs => random() * least(5 * power(2, least(p.attempts - p.attempts_before - 1, 20)), 3600));
  if came in ('busy', 'unknown') then
    pause := greatest(pause, ops_delay_notion(ops_record_notion.error, ops_record_notion.retry_after));
    if came = 'unknown' then
      -- What Notion may still be doing must be done before it is looked for.
      pause := pause + interval '30 seconds';
    end if;
  elsif came = 'held' then
    pause := interval '0';
  end if;
  if came <> 'held' then
    update ops_notion n set last_error = ops_record_notion.error, last_error_at = instant;
  end if;
  update ops_notion_pages o
  set sender = null, last_status = ops_record_notion.status, last_error = ops_record_notion.error, again = false,
    page_id = case when came = 'gone' then null else o.page_id end,
    due_at = instant + pause,
    state = case when came = 'refused' and not newer then 'dead' else 'pending' end,
    ended_at = case when came = 'refused' and not newer then instant end
  where o.job_id = p.job_id;
  return case when came = 'refused' and not newer then 'dead' else 'retry' end;
end
$$;
comment on function ops_record_notion(text, uuid, int, int, text, int, text, text, text, int) is
  'Records what came of publishing an outcome (published; busy, unknown, conflict, gone, held: it is tried again; refused: it is dead), if it is still the caller''s, and says what became of it.';

create function ops_retry_notion(job uuid default null) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  count int;
begin
  if job is not null then
    insert into ops_notion_pages as p (job_id, noted_seq)
    select j.id, j.event_seq from ops_jobs j where j.id = job and j.finished_at is not null
    on conflict (job_id) do update
    set state = 'pending', ended_at = null, attempts_before = p.attempts,
      due_at = case when p.sender is null then excluded.due_at else p.due_at end;
    if not found then
      raise exception 'no job % that has ended', job using errcode = 'no_data_found';
    end if;
    count := 1;
  else
    update ops_notion_pages p
    set state = 'pending', ended_at = null, due_at = clock_timestamp(), attempts_before = p.attempts
    from (select o.job_id from ops_notion_pages o where o.state = 'dead' for update skip locked) d
    where p.job_id = d.job_id;
    get diagnostics count = row_count;
  end if;
  -- What was found faulty is looked at again at once.
  update ops_notion_keys k set check_at = clock_timestamp() where k.fault is not null;
  return count;
end
$$;
comment on function ops_retry_notion(uuid) is
  'Has everything published again that Notion had refused, or one ended job whatever became of it, also one that ended before anybody published; looks at faulty tokens and databases again; gives how many.';

create view ops_notion_health as
select
  n.asked_at > clock_timestamp() - interval '26 hours' as noting,
  (select count(*) from ops_notion_pages p where p.state = 'pending') as pending,
  (select clock_timestamp() - min(p.noted_at) from ops_notion_pages p where p.state = 'pending') as oldest_pending,
  (select count(*) from ops_notion_pages p where p.state = 'dead') as dead,
  n.published, n.last_published_at, n.last_error, n.last_error_at, n.failures,
  greatest(n.next_request_at - clock_timestamp(), '0') as waits_for,
  (select string_agg(k.key || ': ' || k.fault, '; ' order by k.key) from ops_notion_keys k where k.fault is not null) as faults
from ops_notion n;
comment on view ops_notion_health is 'How publishing to Notion fares; no row: no program has asked for it.';
comment on column ops_notion_health.noting is 'Whether ends of jobs are noted: a program asked for it within 26 hours.';
comment on column ops_notion_health.pending is 'How many jobs wait to be published.';
comment on column ops_notion_health.oldest_pending is 'For how long the oldest of them has waited.';
comment on column ops_notion_health.dead is 'How many Notion has refused for good.';
comment on column ops_notion_health.published is 'How many outcomes were published.';
comment on column ops_notion_health.last_published_at is 'When the last of them was.';
comment on column ops_notion_health.last_error is 'Why a request last failed.';
comment on column ops_notion_health.last_error_at is 'When that was.';
comment on column ops_notion_health.failures is 'How often in a row Notion did not answer, or was busy.';
comment on column ops_notion_health.waits_for is 'For how long nobody may call it.';
comment on column ops_notion_health.faults is 'What keeps programs from publishing, by what they publish with.';
