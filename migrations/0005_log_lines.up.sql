-- Every line of a job's log gets one number within the job, so that a reader goes on where it was, over attempts too.

alter table ops_job_log add column first_seq bigint;
comment on column ops_job_log.first_seq is 'The number of its first line within the job, over all claims; a jump tells how many lines were left out. Given by the database.';

update ops_job_log l
set first_seq = numbered.before + l.first_line
from (
  select
    c.job_id, c.fence,
    coalesce(sum(c.last_line) over (partition by c.job_id order by c.fence rows between unbounded preceding and 1 preceding), 0) as before
  from (
    select job_id, fence, max(first_line + lines - 1)::bigint as last_line from ops_job_log group by job_id, fence
  ) c
) numbered
where numbered.job_id = l.job_id and numbered.fence = l.fence;

alter table ops_job_log alter column first_seq set not null;
alter table ops_job_log add constraint ops_job_log_seq_once unique (job_id, first_seq);
comment on index ops_job_log_seq_once is 'Readers go on after a line; also keeps the numbers of two claims apart.';

create function ops_number_log() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  last ops_job_log%rowtype;
begin
  -- Its writer holds the job's row, and earlier claims can write no more: what is last now stays before it.
  select * into last from ops_job_log l
  where l.job_id = new.job_id and (l.fence, l.chunk) < (new.fence, new.chunk)
  order by l.fence desc, l.chunk desc
  limit 1;
  new.first_seq := case
    when last.fence is null then new.first_line
    when last.fence = new.fence then last.first_seq + new.first_line - last.first_line
    else last.first_seq + last.lines - 1 + new.first_line
  end;
  return new;
end
$$;
comment on function ops_number_log() is 'Numbers the lines of a chunk within the job; runners of the release before do not know of it.';

create trigger ops_job_log_number before insert on ops_job_log
for each row execute function ops_number_log();

comment on column ops_job_log.at is 'When its first line was read, by the database''s clock; its last was at most a quarter of a second later.';
comment on column ops_job_log.body is 'The lines, each ended by a newline; secrets that the runner knows are masked.';
