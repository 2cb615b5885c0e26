-- Who runs jobs, what they print, and the figures that metrics_refresh rolls up.

create table ops_runners (
  id text not null,
  boot_id uuid not null,
  version text not null,
  job_types text[] not null,
  slots_total int not null,
  slots_used int not null default 0,
  draining boolean not null default false,
  started_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp(),
  constraint ops_runners_pkey primary key (id)
) with (fillfactor = 50);
comment on table ops_runners is 'Runners by their own account, one row each, refreshed while they live.';
comment on column ops_runners.id is 'RUNNER_ID.';
comment on column ops_runners.boot_id is 'Which start of that runner this is.';
comment on column ops_runners.version is 'The program''s version.';
comment on column ops_runners.job_types is 'The job types that it takes.';
comment on column ops_runners.slots_total is 'How many jobs it runs at once.';
comment on column ops_runners.slots_used is 'How many it was running when last seen.';
comment on column ops_runners.draining is 'True when it takes no new jobs because it is shutting down.';
comment on column ops_runners.started_at is 'When it started.';
comment on column ops_runners.last_seen_at is 'When it last wrote this row.';

create table ops_job_log (
  job_id uuid not null,
  fence bigint not null,
  chunk int not null,
  attempt int not null,
  at timestamptz not null default clock_timestamp(),
  stream text not null,
  first_line int not null,
  lines int not null,
  body text not null,
  constraint ops_job_log_pkey primary key (job_id, fence, chunk),
  constraint ops_job_log_stream_known check (stream in ('stdout', 'stderr', 'runner'))
);
comment on table ops_job_log is 'What handlers printed, in numbered chunks of whole lines, bounded by the runner.';
comment on column ops_job_log.job_id is 'The job.';
comment on column ops_job_log.fence is 'The claim that wrote it; orders the chunks of several attempts.';
comment on column ops_job_log.chunk is 'Its number within the claim: 1, 2, 3 …';
comment on column ops_job_log.attempt is 'The attempt.';
comment on column ops_job_log.at is 'When it was stored.';
comment on column ops_job_log.stream is 'stdout, stderr, or runner for remarks of the runner itself.';
comment on column ops_job_log.first_line is 'The number of its first line within the claim, from 1.';
comment on column ops_job_log.lines is 'How many lines it holds.';
comment on column ops_job_log.body is 'The lines, each ended by a newline.';

create table ops_metrics (
  hour timestamptz not null,
  job_type text not null,
  queued int not null,
  started int not null,
  succeeded int not null,
  failed int not null,
  aborted int not null,
  retried int not null,
  lost int not null,
  dead_lettered int not null,
  wait_ms_p50 bigint,
  wait_ms_p95 bigint,
  wait_ms_p99 bigint,
  run_ms_p50 bigint,
  run_ms_p95 bigint,
  run_ms_p99 bigint,
  refreshed_at timestamptz not null default clock_timestamp(),
  constraint ops_metrics_pkey primary key (hour, job_type)
);
comment on table ops_metrics is 'Figures per hour and job type, rolled up from the events by metrics_refresh.';
comment on column ops_metrics.hour is 'The hour, by its beginning, UTC.';
comment on column ops_metrics.job_type is 'The job type.';
comment on column ops_metrics.queued is 'Jobs recorded in the hour.';
comment on column ops_metrics.started is 'Attempts begun.';
comment on column ops_metrics.succeeded is 'Jobs succeeded.';
comment on column ops_metrics.failed is 'Jobs failed for good.';
comment on column ops_metrics.aborted is 'Jobs aborted.';
comment on column ops_metrics.retried is 'Attempts that failed and were scheduled again.';
comment on column ops_metrics.lost is 'Attempts whose runner was lost.';
comment on column ops_metrics.dead_lettered is 'Jobs failed with their attempts used up.';
comment on column ops_metrics.wait_ms_p50 is 'Median wait from due to claimed, milliseconds.';
comment on column ops_metrics.wait_ms_p95 is '95th percentile of the wait, milliseconds.';
comment on column ops_metrics.wait_ms_p99 is '99th percentile of the wait, milliseconds.';
comment on column ops_metrics.run_ms_p50 is 'Median run time of an attempt, milliseconds.';
comment on column ops_metrics.run_ms_p95 is '95th percentile of the run time, milliseconds.';
comment on column ops_metrics.run_ms_p99 is '99th percentile of the run time, milliseconds.';
comment on column ops_metrics.refreshed_at is 'When this row was last computed.';
