# Runs PostgreSQL and makes it go away when nobody needs it any more, for whatever reason.
# $1 who is watched: "owner" (until standard input closes) or a number (until nobody held the FIFO "users" for so many seconds)
# $2 what is removed after a wanted stop: "keep", "data" or "all"
# $3 the cluster's home   $4 the socket directory   $5... the server and its arguments
# In: fd 0 the owner's pipe, fd 1 where the server's pid goes, fd 2 the lock "alive", which the server inherits.
watch=$1 remove=$2 home=$3 socket=$4
shift 4
cd "$home" || exit 1
exec 4<&2 2>>"$home/log"
rm -f stopping users closing

if [ "$watch" = owner ]; then
    exec 3<&0
else
    # Opened for both directions first, because opening a FIFO to read waits for a writer.
    mkfifo -m 600 users || exit 1
    exec 5<>users
    exec 3<users
    exec 5>&-
fi
exec </dev/null

"$@" </dev/null >>"$home/log" 2>&1 3<&- 4<&4 &
server=$!

nobody_needs_it() {
    if [ "$watch" = owner ]; then
        while read -r _ <&3; do :; done
        return
    fi
    idle=0
    while :; do
        # A user writes one line when it comes; end of file means that nobody holds the FIFO.
        if read -r _ <&3; then
            idle=0
        else
            idle=$((idle + 1))
            sleep 1 3<&-
        fi
        if [ "$idle" -ge "$watch" ]; then
            # Close the door, then look once more: whoever came before it closed is seen here.
            mv users closing
            if read -r _ <&3; then
                mv closing users
                idle=0
            else
                return
            fi
        fi
    done
}

(
    exec 4<&- >/dev/null
    nobody_needs_it
    # Not ":", whose failure would end this shell: somebody may have removed the folder, and the server must go all the same.
    true >stopping
    # A signal that comes before the server has its handler is lost: so repeat it.
    rounds=0
    while :; do
        signal=INT
        [ "$rounds" -lt 100 ] || signal=QUIT
        # Where the guard itself was killed, nobody ends this loop but the server's end.
        kill -"$signal" "$server" || exit
        rounds=$((rounds + 1))
        sleep 0.1 || sleep 1
    done
) 2>/dev/null &
watcher=$!

echo "$server"
exec 3<&- >/dev/null
wait "$server"
kill "$watcher"

[ -e stopping ] || exit 0
case $remove in
data) rm -rf data data.new log log.old users closing stopping "$socket" ;;
all)
    cd /
    rm -rf "$socket" "$home"
    rmdir "${home%/*}" 2>/dev/null
    ;;
*) rm -f stopping ;;
esac
