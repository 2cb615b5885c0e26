-- Webhooks: what happens to jobs is told to addresses of the user's choice.
--
-- An event and what is to be sent because of it are one transaction: the statement that writes the event writes the
-- deliveries too, by a trigger of its own, so that nothing is lost and nobody waits for a receiver. Without an endpoint that
-- is switched on, the trigger looks at one small table and is done. Senders take deliveries under a lease, one attempt at a
-- time; the number of the attempt is the fence of what they record of it. No secret stands here: the programs derive the
-- signing secret of an endpoint from a key of theirs, its id and its secret_version.
--
-- Only adds. The release before reads none of it; its runners send nothing, and its events are sent by others.

create function ops_webhook_kinds() returns text[]
language sql immutable parallel safe
as $$
  select array[
    'queued', 'running', 'succeeded', 'failed', 'dead_lettered', 'aborted', 'retry_scheduled', 'lease_expired', 'held',
    'released', 'resumed', 'replayed', 'abort_requested', 'stale_result_refused', 'stage_queued', 'stage_succeeded',
    'gate_opened', 'gate_approval', 'gate_approved', 'gate_rejected', 'gate_expired'
  ]
$$;
comment on function ops_webhook_kinds() is 'The kinds of events that an endpoint may choose.';

create function ops_webhook_texts_fit(texts text[], pattern text) returns boolean
language sql immutable parallel safe
as $$
  select cardinality(texts) between 1 and 100 and coalesce((select bool_and(t ~ pattern) from unnest(texts) t), false)
$$;
comment on function ops_webhook_texts_fit(text[], text) is 'Whether these are 1 to 100 texts of this pattern.';

create table ops_webhooks (
  name text not null,
  id uuid not null default gen_random_uuid(),
  url text not null,
  events text[] not null default array['succeeded', 'failed', 'dead_lettered', 'aborted', 'gate_opened'],
  job_types text[],
  queues text[],
  with_payload boolean not null default false,
  with_result boolean not null default false,
  timeout_seconds int not null default 10,
  give_up_after_seconds int not null default 259200,
  disable_after_seconds int not null default 432000,
  enabled boolean not null default true,
  disabled_at timestamptz,
  disabled_by text,
  disabled_reason text,
  failing_since timestamptz,
  secret_version int not null default 1,
  old_secret_until timestamptz,
  signing_key_id text,
  revision bigint not null default 1,
  created_by text not null default ops_actor(),
  created_at timestamptz not null default clock_timestamp(),
  updated_by text not null default ops_actor(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint ops_webhooks_pkey primary key (name),
  constraint ops_webhooks_id_once unique (id),
  constraint ops_webhooks_name check (name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
  constraint ops_webhooks_url check (url ~ '^https?://[^\s/?#@]+([/?][^\s#]*)?$' and length(url) <= 2000),
  constraint ops_webhooks_events_known check (cardinality(events) > 0 and events <@ ops_webhook_kinds()),
  constraint ops_webhooks_filters check (
    (job_types is null or ops_webhook_texts_fit(job_types, '^[a-z][a-z0-9_]{0,63}$'))
    and (queues is null or ops_webhook_texts_fit(queues, '^[a-z][a-z0-9_]{0,63}$'))
  ),
  constraint ops_webhooks_times check (
    timeout_seconds between 1 and 30 and give_up_after_seconds between 1 and 2592000
    and disable_after_seconds between 1 and 31536000 and secret_version >= 1
  )
);
comment on table ops_webhooks is 'Endpoints: to whom events of jobs are told. Switch one off with ops_disable_webhook(name, reason).';
comment on column ops_webhooks.name is 'What it is called; matches [a-z0-9][a-z0-9_.-]{0,63}; never changes.';
comment on column ops_webhooks.id is 'Part of what its signing secret is derived from: another endpoint of the same name has another secret.';
comment on column ops_webhooks.url is 'Where deliveries are posted; https, outside dev and test. May hold a token of the receiver''s.';
comment on column ops_webhooks.events is 'The kinds of events that it is told of, of those in ops_webhook_kinds().';
comment on column ops_webhooks.job_types is 'Only events of jobs of these types; null: of all.';
comment on column ops_webhooks.queues is 'Only events of jobs of these queues; null: of all.';
comment on column ops_webhooks.with_payload is 'Whether deliveries hold the job''s payload.';
comment on column ops_webhooks.with_result is 'Whether deliveries hold the job''s result.';
comment on column ops_webhooks.timeout_seconds is 'An attempt ends after so long.';
comment on column ops_webhooks.give_up_after_seconds is 'A delivery that did not arrive for so long is dead.';
comment on column ops_webhooks.disable_after_seconds is 'When nothing has arrived for so long, the endpoint is disabled.';
comment on column ops_webhooks.enabled is 'False: events are not noted for it, and what waits is not sent.';
comment on column ops_webhooks.disabled_at is 'Since when it is disabled; null: it is not.';
comment on column ops_webhooks.disabled_by is 'Who disabled it: a key, a login, or the sender that found it failing.';
comment on column ops_webhooks.disabled_reason is 'Why it was disabled.';
comment on column ops_webhooks.failing_since is 'Since when no attempt has succeeded; null: the last one did, or there was none.';
comment on column ops_webhooks.secret_version is 'Counts the rotations of its secret.';
comment on column ops_webhooks.old_secret_until is 'Until then deliveries are signed with the secret before, too.';
comment on column ops_webhooks.signing_key_id is 'Which key its secret is derived from, by a part of its digest; senders without that key leave it to others. Null: the next sender''s.';
comment on column ops_webhooks.revision is 'Grows with each change of what it does; a change may be asked for on one revision only.';
comment on column ops_webhooks.created_by is 'Who made it.';
comment on column ops_webhooks.created_at is 'When it was made.';
comment on column ops_webhooks.updated_by is 'Who changed it last.';
comment on column ops_webhooks.updated_at is 'When it was changed last.';
comment on index ops_webhooks_id_once is 'The endpoint of a delivery.';

create table ops_webhook_deliveries (
  id uuid not null default ops_uuidv7(),
  webhook_id uuid not null,
  kind text not null,
  job_id uuid,
  event_seq int,
  body text not null,
  state text not null default 'pending',
  attempts int not null default 0,
  attempts_before int not null default 0,
  due_at timestamptz not null default clock_timestamp(),
  give_up_at timestamptz not null,
  sender text,
  last_status int,
  last_error text,
  created_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  -- No foreign keys: a job that moves waits for nobody who changes or removes an endpoint.
  constraint ops_webhook_deliveries_pkey primary key (id),
  constraint ops_webhook_deliveries_state_known check (state in ('pending', 'delivered', 'dead')),
  constraint ops_webhook_deliveries_ended check ((state = 'pending') = (ended_at is null))
);
comment on table ops_webhook_deliveries is 'What is told to endpoints, one row a message. Kept for 30 days after its end. Send one again with ops_resend_webhook(id).';
comment on column ops_webhook_deliveries.id is 'The message''s id, sent as webhook-id: the same in each attempt, so that receivers know it again.';
comment on column ops_webhook_deliveries.webhook_id is 'The endpoint, by its id.';
comment on column ops_webhook_deliveries.kind is 'The kind of the event; ping for a trial.';
comment on column ops_webhook_deliveries.job_id is 'The job; null: a trial.';
comment on column ops_webhook_deliveries.event_seq is 'The number of the event within its job.';
comment on column ops_webhook_deliveries.body is 'What is posted, letter for letter.';
comment on column ops_webhook_deliveries.state is 'pending, delivered, or dead (given up).';
comment on column ops_webhook_deliveries.attempts is 'How often it was taken to be sent; also the fence of the newest attempt.';
comment on column ops_webhook_deliveries.attempts_before is 'How many of them were before it was last sent again by hand.';
comment on column ops_webhook_deliveries.due_at is 'When it is to be sent; while it is being sent, when that counts as lost.';
comment on column ops_webhook_deliveries.give_up_at is 'A failure whose next attempt would be later than this is the last.';
comment on column ops_webhook_deliveries.sender is 'Who is sending it just now; null: nobody.';
comment on column ops_webhook_deliveries.last_status is 'What the receiver last answered; null: nothing.';
comment on column ops_webhook_deliveries.last_error is 'Why the last attempt failed; null: it did not.';
comment on column ops_webhook_deliveries.created_at is 'When the event happened.';
comment on column ops_webhook_deliveries.ended_at is 'When it was delivered or given up.';
create index ops_webhook_deliveries_due on ops_webhook_deliveries (webhook_id, due_at) where state = 'pending';
comment on index ops_webhook_deliveries_due is 'Senders: what is due for an endpoint.';
create index ops_webhook_deliveries_of on ops_webhook_deliveries (webhook_id, id);
comment on index ops_webhook_deliveries_of is 'The deliveries of an endpoint, newest first.';
create index ops_webhook_deliveries_dead on ops_webhook_deliveries (webhook_id, created_at) where state = 'dead';
comment on index ops_webhook_deliveries_dead is 'What was given up for an endpoint: counted, and sent again by hand.';
create index ops_webhook_deliveries_ended on ops_webhook_deliveries (ended_at) where ended_at is not null;
comment on index ops_webhook_deliveries_ended is 'Retention: what ended more than 30 days ago.';

create table ops_webhook_attempts (
  delivery_id uuid not null,
  attempt int not null,
  at timestamptz not null default clock_timestamp(),
  sender text not null,
  status int,
  error text,
  duration_ms int,
  constraint ops_webhook_attempts_pkey primary key (delivery_id, attempt),
  constraint ops_webhook_attempts_delivery foreign key (delivery_id) references ops_webhook_deliveries (id) on delete cascade
);
comment on table ops_webhook_attempts is 'Each attempt to deliver a message, one row each; written before it is sent.';
comment on column ops_webhook_attempts.delivery_id is 'The message.';
comment on column ops_webhook_attempts.attempt is '1, 2, 3 …';
comment on column ops_webhook_attempts.at is 'When it was taken to be sent; sent as webhook-timestamp.';
comment on column ops_webhook_attempts.sender is 'Who sent it.';
comment on column ops_webhook_attempts.status is 'What the receiver answered; null: nothing.';
comment on column ops_webhook_attempts.error is 'Why it failed; null: it did not, or nothing is known.';
comment on column ops_webhook_attempts.duration_ms is 'How long it took; null: its sender was lost before it could say, and the message may have arrived.';

create function ops_guard_webhook() returns trigger
language plpgsql
as $$
declare
  instant timestamptz := clock_timestamp();
begin
  if tg_op = 'UPDATE' then
    if new.name <> old.name or new.id <> old.id or new.created_at <> old.created_at or new.created_by <> old.created_by then
      raise exception 'name, id, created_at and created_by of webhook % never change', old.name using
        errcode = 'check_violation', constraint = 'ops_webhooks_immutable';
    end if;
    if (
      new.url, new.events, new.job_types, new.queues, new.with_payload, new.with_result, new.timeout_seconds,
      new.give_up_after_seconds, new.disable_after_seconds, new.enabled, new.secret_version
    ) is distinct from (
      old.url, old.events, old.job_types, old.queues, old.with_payload, old.with_result, old.timeout_seconds,
      old.give_up_after_seconds, old.disable_after_seconds, old.enabled, old.secret_version
    ) then
      new.revision := old.revision + 1;
      new.updated_at := instant;
      new.updated_by := ops_actor();
    end if;
    if new.url <> old.url then
      new.failing_since := null;
    end if;
  end if;
  if new.enabled then
    new.disabled_at := null;
    new.disabled_by := null;
    new.disabled_reason := null;
    if tg_op = 'UPDATE' and not old.enabled then
      new.failing_since := null;
    end if;
  elsif tg_op = 'INSERT' or old.enabled then
    new.disabled_at := instant;
    new.disabled_by := ops_actor();
    new.disabled_reason := nullif(current_setting('ops.reason', true), '');
  end if;
  return new;
end
$$;
comment on function ops_guard_webhook() is 'Sets what follows from a change of an endpoint, made by a program or by hand: its revision, who disabled it and why.';
create trigger ops_webhooks_guard before insert or update on ops_webhooks
for each row execute function ops_guard_webhook();

create function ops_drop_deliveries() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  delete from ops_webhook_deliveries d where d.webhook_id = old.id;
  return null;
end
$$;
comment on function ops_drop_deliveries() is 'Deliveries leave with their endpoint.';
create trigger ops_webhooks_drop_deliveries after delete on ops_webhooks
for each row execute function ops_drop_deliveries();

create function ops_instant_text(instant timestamptz) returns text
language sql stable parallel safe
as $$ select to_char(instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;
comment on function ops_instant_text(timestamptz) is 'An instant as RFC 3339 has it, in UTC.';

create function ops_note_webhooks() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  -- What is longer is left out of a delivery: its receiver asks for the job.
  longest constant int := 65536;
begin
  if not exists (select from ops_webhooks w where w.enabled) then
    return null;
  end if;
  insert into ops_webhook_deliveries (webhook_id, kind, job_id, event_seq, body, give_up_at)
  select
    w.id, e.kind, e.job_id, e.seq,
    jsonb_build_object(
      'type', 'job.' || e.kind,
      'timestamp', ops_instant_text(e.at),
      'data', jsonb_build_object(
        'job_id', j.id, 'job_type', j.job_type, 'queue', j.queue, 'status', j.status, 'labels', j.labels,
        'event', jsonb_build_object(
          'seq', e.seq, 'kind', e.kind, 'at', ops_instant_text(e.at), 'attempt', e.attempt, 'max_attempts', j.max_attempts,
          'runner_id', e.runner_id, 'actor', e.actor
        ) || coalesce(
          -- Only what is known to hold nothing of the payload or the result: patches do.
          (
            select jsonb_object_agg(d.key, d.value) from jsonb_each(e.data) d
            where d.key in (
              'error', 'reason', 'run_at', 'ran_ms', 'waited_ms', 'stage', 'revision', 'document_hash', 'approvals',
              'auto_approve_at', 'expires_at', 'automatic'
            )
          ),
          '{}'
        )
      )
      || case when w.with_payload and octet_length(j.payload::text) <= longest then jsonb_build_object('payload', j.payload) else '{}' end
      || case when w.with_result and octet_length(j.result::text) <= longest then jsonb_build_object('result', j.result) else '{}' end
      || case when t.omitted = '{}' then '{}' else jsonb_build_object('omitted', t.omitted) end
    )::text,
    clock_timestamp() + make_interval(secs => w.give_up_after_seconds)
  from new_rows e
  join ops_webhooks w on w.enabled and e.kind = any (w.events)
  join ops_jobs j on j.id = e.job_id
  cross join lateral (
    select array_remove(array[
      case when w.with_payload and octet_length(j.payload::text) > longest then 'payload' end,
      case when w.with_result and octet_length(j.result::text) > longest then 'result' end
    ], null) as omitted
  ) t
  where (w.job_types is null or j.job_type = any (w.job_types) or j.stage_type = any (w.job_types))
    and (w.queues is null or j.queue = any (w.queues));
  return null;
end
$$;
comment on function ops_note_webhooks() is 'Writes what is to be told of events, in their transaction; without an endpoint it is one look at a small table.';
create trigger ops_job_events_note_webhooks after insert on ops_job_events
referencing new table as new_rows
for each statement execute function ops_note_webhooks();

create function ops_claim_webhooks(sender text, key_ids text[], most int)
returns table (
  delivery_id uuid, attempt int, unix_seconds bigint, body text, url text, timeout_seconds int, webhook_id uuid,
  webhook text, secret_version int, old_secret boolean
)
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  -- So many at once for one endpoint; one that fails is tried one by one, so that it keeps no sender from the others.
  most_each constant int := 8;
  instant timestamptz := clock_timestamp();
begin
  -- A copy that was restored is paused: it tells nobody what happened long ago.
  if exists (select from ops_fleet f where f.paused_at is not null) then
    return;
  end if;
  return query
  with chosen as materialized (
    select w.id from ops_webhooks w
    where w.enabled and (w.signing_key_id is null or w.signing_key_id = any (key_ids))
      and exists (
        select from ops_webhook_deliveries d where d.webhook_id = w.id and d.state = 'pending' and d.due_at <= instant
      )
    order by w.failing_since is not null, random()
  ),
  picked as materialized (
    select p.id
    from chosen c
    join ops_webhooks w on w.id = c.id
    cross join lateral (
      select d.id from ops_webhook_deliveries d
      where d.webhook_id = w.id and d.state = 'pending' and d.due_at <= instant
      order by d.due_at
      limit case when w.failing_since is null then most_each else 1 end
      for update of d skip locked
    ) p
    limit most
  ),
  taken as (
    update ops_webhook_deliveries d
    set attempts = d.attempts + 1, sender = ops_claim_webhooks.sender,
      due_at = clock_timestamp() + make_interval(secs => w.timeout_seconds + 15)
    from picked p, ops_webhooks w
    where d.id = p.id and w.id = d.webhook_id
    returning d.id, d.attempts, d.body, w.url, w.timeout_seconds, w.id as of, w.name, w.secret_version,
      coalesce(w.old_secret_until > clock_timestamp(), false) as old_secret
  ),
  noted as (
    insert into ops_webhook_attempts (delivery_id, attempt, sender)
    select t.id, t.attempts, ops_claim_webhooks.sender from taken t
    returning ops_webhook_attempts.delivery_id as id, ops_webhook_attempts.at
  )
  select
    t.id, t.attempts, floor(extract(epoch from n.at))::bigint, t.body, t.url, t.timeout_seconds, t.of, t.name,
    t.secret_version, t.old_secret
  from taken t join noted n on n.id = t.id;
  -- Its secret is derived from the newest key of those that know it: after a change of keys the old one may go.
  update ops_webhooks w set signing_key_id = key_ids[1]
  where w.enabled and w.signing_key_id is distinct from key_ids[1] and (w.signing_key_id is null or w.signing_key_id = any (key_ids));
end
$$;
comment on function ops_claim_webhooks(text, text[], int) is
  'Takes due deliveries to send them, each for its attempt''s time and 15 s; whoever does not record one by then has lost it, and it is sent again.';

create function ops_record_webhook(
  sender text, delivery_id uuid, attempt int, status int, error text, duration_ms int, retry_after int, gone boolean
) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
#variable_conflict use_column
declare
  instant timestamptz := clock_timestamp();
  d ops_webhook_deliveries;
  next_at timestamptz;
  w ops_webhooks;
begin
  update ops_webhook_attempts a
  set status = ops_record_webhook.status, error = ops_record_webhook.error, duration_ms = ops_record_webhook.duration_ms
  where a.delivery_id = ops_record_webhook.delivery_id and a.attempt = ops_record_webhook.attempt and a.duration_ms is null;
  select * into d from ops_webhook_deliveries o
  where o.id = ops_record_webhook.delivery_id and o.attempts = ops_record_webhook.attempt and o.state = 'pending'
    and o.sender = ops_record_webhook.sender
  for update;
  if not found then
    -- Its lease had run out and somebody else sends it, or it is gone.
    return 'late';
  end if;
  if ops_record_webhook.error is null then
    update ops_webhook_deliveries o
    set state = 'delivered', ended_at = instant, sender = null, last_status = ops_record_webhook.status, last_error = null
    where o.id = d.id;
    update ops_webhooks o set failing_since = null where o.id = d.webhook_id and o.failing_since is not null;
    return 'delivered';
  end if;
  -- 5 s, 20 s, 80 s … 6 h, each up to a fifth more or less, so that those that failed together do not come back together.
  next_at := instant + make_interval(secs => greatest(
    least(5 * power(4, least(d.attempts - d.attempts_before - 1, 10)), 21600) * (0.8 + 0.4 * random()),
    least(coalesce(ops_record_webhook.retry_after, 0), 86400)
  ));
  update ops_webhook_deliveries o
  set sender = null, last_status = ops_record_webhook.status, last_error = ops_record_webhook.error, due_at = next_at,
    state = case when next_at > d.give_up_at or gone then 'dead' else 'pending' end,
    ended_at = case when next_at > d.give_up_at or gone then instant end
  where o.id = d.id;
  update ops_webhooks o set failing_since = instant where o.id = d.webhook_id and o.failing_since is null;
  select * into w from ops_webhooks o where o.id = d.webhook_id;
  if w.enabled and (gone or w.failing_since < instant - make_interval(secs => w.disable_after_seconds)) then
    perform set_config('ops.actor', ops_record_webhook.sender, true);
    perform set_config('ops.reason', case
      when gone then 'the receiver says that it is gone for good (410)'
      else format('nothing has arrived since %s; at last: %s', ops_instant_text(w.failing_since), ops_record_webhook.error)
    end, true);
    update ops_webhooks o set enabled = false where o.id = w.id and o.enabled;
    perform set_config('ops.reason', '', true);
    return 'disabled';
  end if;
  return case when next_at > d.give_up_at or gone then 'dead' else 'retry' end;
end
$$;
comment on function ops_record_webhook(text, uuid, int, int, text, int, int, boolean) is
  'Records an attempt, if it is still the newest, and says what came of it: delivered, retry, dead, disabled (the endpoint too), or late.';

create function ops_keep_webhooks(page int default 1000) returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  removed int;
begin
  -- What waits for an endpoint that stays disabled is given up in its time.
  update ops_webhook_deliveries d
  set state = 'dead', ended_at = clock_timestamp(), last_error = coalesce(d.last_error, 'its endpoint was disabled')
  from (
    select o.id from ops_webhook_deliveries o join ops_webhooks w on w.id = o.webhook_id
    where o.state = 'pending' and o.give_up_at < clock_timestamp() and not w.enabled
    limit page
    for update of o skip locked
  ) old
  where d.id = old.id;
  delete from ops_webhook_deliveries d
  using (
    (
      select o.id from ops_webhook_deliveries o
      where o.ended_at < clock_timestamp() - interval '30 days' order by o.ended_at limit page
    )
    union all
    (
      -- Written by a transaction that did not see its endpoint go.
      select o.id from ops_webhook_deliveries o
      where o.state = 'pending' and not exists (select from ops_webhooks w where w.id = o.webhook_id) limit page
    )
  ) old
  where d.id = old.id;
  get diagnostics removed = row_count;
  return removed;
end
$$;
comment on function ops_keep_webhooks(int) is
  'Gives up what waits for disabled endpoints, and removes deliveries that ended more than 30 days ago, a page of each; gives how many were removed.';

create function ops_resend_webhook(delivery uuid) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  update ops_webhook_deliveries d
  set state = 'pending', ended_at = null, due_at = clock_timestamp(), attempts_before = d.attempts,
    give_up_at = clock_timestamp() + make_interval(secs => w.give_up_after_seconds)
  from ops_webhooks w
  where d.id = ops_resend_webhook.delivery and w.id = d.webhook_id and d.sender is null;
  if found then
    return 'pending';
  end if;
  if not exists (select from ops_webhook_deliveries d where d.id = ops_resend_webhook.delivery) then
    raise exception 'no delivery %', ops_resend_webhook.delivery using errcode = 'no_data_found';
  end if;
  return 'sending';
end
$$;
comment on function ops_resend_webhook(uuid) is
  'Has a delivery sent again at once, under its own id, whatever became of it: pending; or sending, where that is under way.';

create function ops_resend_dead_webhooks(name text, since timestamptz default '-infinity') returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  count int;
begin
  if not exists (select from ops_webhooks w where w.name = ops_resend_dead_webhooks.name) then
    raise exception 'no webhook %', ops_resend_dead_webhooks.name using errcode = 'no_data_found';
  end if;
  update ops_webhook_deliveries d
  set state = 'pending', ended_at = null, due_at = clock_timestamp(), attempts_before = d.attempts,
    give_up_at = clock_timestamp() + make_interval(secs => w.give_up_after_seconds)
  from ops_webhooks w
  where w.name = ops_resend_dead_webhooks.name and d.webhook_id = w.id and d.state = 'dead'
    and d.ended_at is not null and d.created_at >= since;
  get diagnostics count = row_count;
  return count;
end
$$;
comment on function ops_resend_dead_webhooks(text, timestamptz) is
  'Has everything sent again that was given up for an endpoint, of events since an instant; gives how many.';

create function ops_ping_webhook(name text) returns uuid
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  w ops_webhooks;
  made uuid;
begin
  select * into w from ops_webhooks o where o.name = ops_ping_webhook.name;
  if not found then
    raise exception 'no webhook %', ops_ping_webhook.name using errcode = 'no_data_found';
  end if;
  insert into ops_webhook_deliveries (webhook_id, kind, body, give_up_at)
  values (
    w.id, 'ping',
    jsonb_build_object(
      'type', 'webhook.ping', 'timestamp', ops_instant_text(clock_timestamp()),
      'data', jsonb_build_object('webhook', w.name, 'actor', ops_actor())
    )::text,
    clock_timestamp() + make_interval(secs => w.give_up_after_seconds)
  )
  returning id into made;
  return made;
end
$$;
comment on function ops_ping_webhook(text) is 'Has a trial sent to an endpoint, and gives its delivery''s id.';

create function ops_enable_webhook(name text) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  update ops_webhooks w set enabled = true where w.name = ops_enable_webhook.name and not w.enabled;
  if not exists (select from ops_webhooks w where w.name = ops_enable_webhook.name) then
    raise exception 'no webhook %', ops_enable_webhook.name using errcode = 'no_data_found';
  end if;
  return 'enabled';
end
$$;
comment on function ops_enable_webhook(text) is 'Switches an endpoint on; what still waits for it is sent.';

create function ops_disable_webhook(name text, reason text default null) returns text
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  perform set_config('ops.reason', coalesce(ops_disable_webhook.reason, ''), true);
  update ops_webhooks w set enabled = false where w.name = ops_disable_webhook.name and w.enabled;
  perform set_config('ops.reason', '', true);
  if not exists (select from ops_webhooks w where w.name = ops_disable_webhook.name) then
    raise exception 'no webhook %', ops_disable_webhook.name using errcode = 'no_data_found';
  end if;
  return 'disabled';
end
$$;
comment on function ops_disable_webhook(text, text) is
  'Switches an endpoint off, with who and why: events are not noted for it, and what waits is not sent until it is switched on again.';

create function ops_rotate_webhook(name text, overlap interval default '1 day') returns int
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  version int;
begin
  update ops_webhooks w
  set secret_version = w.secret_version + 1, old_secret_until = clock_timestamp() + ops_rotate_webhook.overlap
  where w.name = ops_rotate_webhook.name
  returning w.secret_version into version;
  if not found then
    raise exception 'no webhook %', ops_rotate_webhook.name using errcode = 'no_data_found';
  end if;
  return version;
end
$$;
comment on function ops_rotate_webhook(text, interval) is
  'Gives an endpoint another secret; for so long deliveries are signed with the one before, too. Gives the number of the new one.';

create view ops_webhook_health as
select
  w.name, w.enabled, w.disabled_reason, w.failing_since,
  count(d.id) filter (where d.state = 'pending') as pending,
  clock_timestamp() - min(d.created_at) filter (where d.state = 'pending') as oldest_pending,
  count(d.id) filter (where d.state = 'dead') as dead,
  count(d.id) filter (where d.state = 'delivered') as delivered,
  max(d.ended_at) filter (where d.state = 'delivered') as last_delivered_at
from ops_webhooks w
left join ops_webhook_deliveries d on d.webhook_id = w.id
group by w.name;
comment on view ops_webhook_health is 'How each endpoint fares, over the deliveries that are still kept.';
comment on column ops_webhook_health.name is 'The endpoint.';
comment on column ops_webhook_health.enabled is 'Whether it is switched on.';
comment on column ops_webhook_health.disabled_reason is 'Why it is not.';
comment on column ops_webhook_health.failing_since is 'Since when no attempt has succeeded; null: the last one did.';
comment on column ops_webhook_health.pending is 'How many deliveries wait.';
comment on column ops_webhook_health.oldest_pending is 'For how long the oldest of them has waited.';
comment on column ops_webhook_health.dead is 'How many were given up.';
comment on column ops_webhook_health.delivered is 'How many arrived.';
comment on column ops_webhook_health.last_delivered_at is 'When the newest of them arrived.';
