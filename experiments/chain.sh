# experiments/chain.sh -- what the chains of this folder share; a script sources it and defines usage(), which prints its help.

# A fault of usage.
fail() {
    echo "$(basename "$0"): $1" >&2
    echo "Try '$(basename "$0") -h' for more information." >&2
    exit 2
}

# ARGUMENT... -- the first one is a net, before the options: $net; the caller shifts.
net_first() {
    case ${1-} in
    -h | --help)
        usage
        exit 0
        ;;
    '' | -*) fail "a net is missing" ;;
    esac
    net=$1
}

# OPTSTRING ARGUMENT... -- the options that mean the same everywhere, each into its variable; how many arguments to shift: $used.
options() {
    letters=$1
    shift
    data='' epochs='' init='' out=results qrun=./qrun dry=
    OPTIND=1
    while getopts "$letters" opt; do
        case $opt in
        c) count=$OPTARG ;;
        d) data=$OPTARG ;;
        e) epochs=$OPTARG ;;
        i) init=$OPTARG ;;
        o) out=$OPTARG ;;
        q) qrun=$OPTARG ;;
        r) table=$OPTARG ;;
        s) stages=$OPTARG ;;
        n) dry=1 ;;
        h)
            usage
            exit 0
            ;;
        *) fail "unknown option" ;;
        esac
    done
    used=$((OPTIND - 1))
    shift "$used"
    while [ $# -gt 1 ]; do
        case $2 in -*) fail "'$2' behind '$1'; options come before KEY=VALUE" ;; esac
        shift
    done
    case $epochs in *[!0-9]* | 0) fail "-e $epochs: expected a number of epochs, at least 1" ;; esac
}

# LABEL CONFIG KEY=VALUE... -- one stage: runs it, or with -n prints the command; the result goes behind LABEL up to a comma.
stage() {
    label=$1 config=$2
    shift 2
    [ -f "$config" ] || fail "there is no $config"
    if [ -n "$dry" ]; then
        echo "$qrun $config $*"
        return
    fi
    echo "== $label" >&2
    result=$("$qrun" "$config" "$@")
    printf '%s: %s\n' "${label%%,*}" "$(printf '%s\n' "$result" | tail -n 1)"
}

# LABEL FOLDER -- what LABEL starts from has to be there.
needs() {
    [ -n "$dry" ] || [ -e "$2" ] || {
        echo "$(basename "$0"): $1 starts from $2, which is not there; run that stage first" >&2
        exit 3
    }
}
