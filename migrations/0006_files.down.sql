drop view ops_artifacts;
drop trigger ops_jobs_drop_files on ops_jobs;
drop table ops_file_chunks;
drop table ops_files;
drop table ops_file_garbage;
drop function ops_drop_files();
drop function ops_note_garbage();
