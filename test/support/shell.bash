# test/support/shell.bash -- what the bats files about the command line share: `load support/shell`.

# Runs a command; stdout in $out, stderr in $err, exit status in $status.
both() {
    status=0
    "$@" >out.txt 2>err.txt || status=$?
    out=$(cat out.txt) err=$(cat err.txt)
}

has() { # TEXT PART
    case $1 in *"$2"*) return 0 ;; esac
    printf 'missing: %s\nin: %s\n' "$2" "$1"
    return 1
}

hasnt() { # TEXT PART
    case $1 in *"$2"*) printf 'unwanted: %s\nin: %s\n' "$2" "$1"; return 1 ;; esac
}

is() { # GOT WANTED
    [ "$1" = "$2" ] || {
        printf 'got: %s\nwanted: %s\nstderr: %s\n' "$1" "$2" "$err"
        return 1
    }
}

# For setup_file: the program's path in $qrun, a folder of the file's own in $shared, and there.
own_folder() {
    qrun=${QRUN:-build/release/qrun}
    case $qrun in /*) ;; *) qrun=$PWD/$qrun ;; esac
    shared=$(mktemp -d)
    export qrun shared
    cd "$shared"
}
