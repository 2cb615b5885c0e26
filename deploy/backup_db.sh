#!/usr/bin/env bash
# A timestamped, verified backup of the database that DATABASE_URL names, then the removal of those that have had their time.
#
# Where opsctl is (OPSCTL, PATH, or built in this project), this is `opsctl db backup`. Elsewhere pg_dump does it alone: the same
# file, checked by pg_restore and with its SHA-256, under the same name and the same retention, but without a manifest, so that a
# drill verifies it and has nothing to compare it with, and without objects of an object store.
#
#   DATABASE_URL            required; its password goes to pg_dump by PGPASSWORD, never by an argument
#   BACKUP_DIR              backups in the project's folder, unless set
#   BACKUP_RETENTION_DAYS   14, unless set
set -euo pipefail
umask 077

say() { printf 'backup_db.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

project="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export BACKUP_DIR="${BACKUP_DIR:-$project/backups}"
days="${BACKUP_RETENTION_DAYS:-14}"
[ -n "${DATABASE_URL:-}" ] || { say 'DATABASE_URL is not set: it names the database to back up'; exit 2; }
[[ "$days" =~ ^[1-9][0-9]{0,4}$ ]] || { say 'BACKUP_RETENTION_DAYS is a whole number of days, at least 1'; exit 2; }

if [ "${OPSCTL:-}" != none ]; then
  for opsctl in "${OPSCTL:-}" "$(command -v opsctl || true)" "$project/target/release/opsctl" "$project/target/debug/opsctl"; do
    if [ -n "$opsctl" ] && [ -x "$opsctl" ]; then
      exec "$opsctl" db backup
    fi
  done
fi

# Without opsctl, or with OPSCTL=none.
find_program() {
  command -v "$1" 2>/dev/null && return
  local newest=''
  for candidate in /usr/lib/postgresql/*/bin/"$1" /usr/pgsql-*/bin/"$1"; do
    [ -x "$candidate" ] && newest="$candidate"
  done
  [ -n "$newest" ] || die "$1 was not found: install the client of PostgreSQL"
  printf '%s\n' "$newest"
}
pg_dump="$(find_program pg_dump)"
pg_restore="$(find_program pg_restore)"

# The password leaves the address: arguments can be read by everybody on this machine.
address="$DATABASE_URL"
if [[ "$address" =~ ^(postgres(ql)?://[^:@/?]*):([^@/]*)@(.*)$ ]]; then
  address="${BASH_REMATCH[1]}@${BASH_REMATCH[4]}"
  encoded="${BASH_REMATCH[3]//\\/\\\\}"
  PGPASSWORD="$(printf '%b' "${encoded//%/\\x}")"
  export PGPASSWORD
fi
case "$address" in
  *[?\&]password=*) die 'write the password between user and host (postgres://user:password@host/…), not among the parameters' ;;
  postgres://* | postgresql://*) ;;
  *) say 'DATABASE_URL is no address of PostgreSQL: postgres://…'; exit 2 ;;
esac

mkdir -p -- "$BACKUP_DIR"
cd -- "$BACKUP_DIR"
exec 9> .lock
flock -n 9 || die "another backup into $BACKUP_DIR is under way"
rm -f -- .partial-ops-jobs-*.dump .partial-ops-jobs-*.dump.sha256

name="ops-jobs-$(date -u +%Y%m%dT%H%M%SZ).dump"
[ ! -e "$name" ] || die "$name is there already"
partial=".partial-$name"
trap 'rm -f -- "$partial" "$partial.sha256"' EXIT

"$pg_dump" --format=custom --compress=3 --no-password --lock-wait-timeout=10s --file="$partial" --dbname="$address"
contents="$("$pg_restore" --list "$partial")"
[[ "$contents" == *' TABLE DATA public ops_jobs '* ]] || die 'the dump has no ops_jobs: is this the database?'
sum="$(sha256sum -- "$partial")"
printf '%s  %s\n' "${sum%% *}" "$name" > "$partial.sha256"
sync -- "$partial" "$partial.sha256"
mv -- "$partial.sha256" "$name.sha256"
mv -- "$partial" "$name"
sync -- .
trap - EXIT
printf '%s/%s\n' "$BACKUP_DIR" "$name"

# Only now, by the dates in the names, never the newest three, and nothing that is not exactly ours.
oldest="$(date -u -d "-$days days" +%Y%m%dT%H%M%SZ)"
kept=0
mapfile -t dumps < <(find . -maxdepth 1 -type f -name 'ops-jobs-*.dump' -printf '%f\n' | LC_ALL=C sort -r)
for dump in "${dumps[@]}"; do
  [[ "$dump" =~ ^ops-jobs-([0-9]{8}T[0-9]{6}Z)\.dump$ ]] || continue
  kept=$((kept + 1))
  if [ "$kept" -gt 3 ] && [[ "${BASH_REMATCH[1]}" < "$oldest" ]]; then
    stem="${dump%.dump}"
    rm -f -- "$dump" "$dump.sha256" "$stem.manifest.json"
    rm -rf -- "$stem.objects"
    say "removed $dump: older than $days days"
  fi
done
