/* run/cli.c -- the command line: options, the table of commands, and how the process ends. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/fs.h"
#include "run/commands.h"
#include "run/main.h"
#include "run/signals.h"

const Command commands[] = {
    {"run", "FILE [KEY=VALUE]...", "do what FILE says; the same as `qrun FILE`", command_run, CMD_AFTER},
    {"train", "FILE [KEY=VALUE]...", "train (an error if FILE says test_only)", command_train, CMD_AFTER},
    {"test", "FILE [KEY=VALUE]...", "evaluate: the same as test_only=true", command_test, CMD_AFTER},
    {"check", "FILE [KEY=VALUE]...",
     "configuration, data, checkpoint, memory, disk, time; trains nothing", command_check, 0},
    {"show", "FILE [KEY=VALUE]...", "every option: its value, and where it came from", command_show,
     0},
    {"summary", "FILE [KEY=VALUE]... [--json]",
     "layers, shapes, parameters, MACs, bits, bit operations, memory", command_summary, CMD_JSON},
    {"profile", "FILE [KEY=VALUE]...", "time of each op against the machine's measured peaks",
     command_profile, 0},
    {"predict", "CONFIG [KEY=VALUE]... IMAGE... [--json]",
     "the five likeliest classes of images: files, folders, - for standard input", command_predict,
     CMD_JSON},
    {"report", "RUN... [pictures=svg|png|both]",
     "write RUN/report.html and RUN/pictures/ (done after each training too)", command_report, 0},
    {"compare", "RUN RUN... [html=FILE] [by=KEY [rows=KEY] [picture=FILE]] [--json]",
     "results of runs, and the keys that differ; by=KEY: a table by two keys", command_compare, CMD_JSON},
    {"inspect", "FILE [--json | values=NAME,...]",
     "tensors of a checkpoint or ONNX file: shape, type, statistics, number of levels; or all values", command_inspect,
     CMD_JSON},
    {"diff", "A B [tol=X] [rtol=X] [--json]",
     "whether two checkpoints hold the same values; exit status 5 if not", command_diff, CMD_JSON},
    {"convert", "OLD [NEW] [from=FILE to=FILE] [prefix=TEXT] [keep=true] [config=FILE]",
     "a checkpoint under other names, or filled into a net; without NEW only print the names",
     command_convert, 0},
    {"verify", "CONFIG [KEY=VALUE]... | IMAGE|FOLDER|LIST.txt...",
     "decode every image of a data set or folder; name those at fault, exit status 3", command_verify,
     0},
    {"list", "nets|quant|keywords|datasets|transforms|optimizers|schedules|modes", "what an option may name",
     command_list, 0},
    {"path", "best|last RUN", "print the checkpoint of a run folder, for $(...)", command_path, 0},
    {"help", "[keys|COMMAND|PATTERN]", "this text, all options of a FILE, or those that match",
     command_help, 0},
    {"docs", "keys|keywords", "docs/keys.md, docs/keywords.md", command_docs, CMD_HIDDEN},
    {NULL, NULL, NULL, NULL, 0},
};

enum { OPT_VERSION = 256, OPT_COLOR, OPT_PROGRESS, OPT_LEVEL, OPT_FORMAT, OPT_JSON, OPT_MAX_TIME, OPT_AFTER };

static const struct {
    const char *name;
    int code; /* below 256: also the short option */
    const char *arg, *doc;
} options[] = {
    {"verbose", 'v', NULL, "say more; twice: still more"},
    {"quiet", 'q', NULL, "only warnings, errors and the result line; twice: only errors"},
    {"log-level", OPT_LEVEL, "error|warn|info|debug|trace", "the same by name"},
    {"log-format", OPT_FORMAT, "text|json", "log lines as text or as JSON objects"},
    {"color", OPT_COLOR, "auto|always|never", "colour of the log; auto heeds NO_COLOR"},
    {"progress", OPT_PROGRESS, "auto|always|never",
     "the progress line (redrawn on a terminal only)"},
    {"max-time", OPT_MAX_TIME, "TIME", "save and stop after 90, 55m or 2h, with exit status 75"},
    {"after", OPT_AFTER, "PID", "begin when that process has ended; the configuration is checked at once"},
    {"json", OPT_JSON, NULL, "print JSON (commands that name it in their help)"},
    {"help", 'h', NULL, "print this text, or that of the command"},
    {"version", OPT_VERSION, NULL, "print the version; with -v those of the libraries"},
};

const Command *command_find(const char *name)
{
    for (const Command *c = commands; c->name; c++)
        if (str_eq(c->name, name)) return c;
    return NULL;
}

int usage_fault(Err *e, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(e, ERR_CONFIG, "%s", text);
    return err_add(e, ERR_CONFIG, "Try 'qrun --help' for more information.");
}

/* ---- help ---- */

static void help_options(Str *out)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        char left[64];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", options[i].code < 256 ? '-' : ' ',
                 options[i].code < 256 ? options[i].code : ' ', options[i].code < 256 ? "," : " ",
                 options[i].name, options[i].arg ? "=" : "", options[i].arg ? options[i].arg : "");
        str_printf(out, strlen(left) < 24 ? "  %-24s" : "  %s\n                          ", left);
        str_printf(out, "%s\n", options[i].doc);
    }
}

void help_main(Str *out)
{
    str_puts(out,
             "Usage: qrun [OPTION]... FILE [KEY=VALUE]...\n"
             "       qrun [OPTION]... COMMAND [ARGUMENT]...\n"
             "Train, quantize or evaluate a convolutional network as the YAML file FILE says.\n"
             "\nCommands:\n");
    for (const Command *c = commands; c->name; c++)
        if (!(c->flags & CMD_HIDDEN)) str_printf(out, "  %-10s%s\n", c->name, c->doc);
    str_puts(out, "\nOptions:\n");
    help_options(out);
    str_puts(out, "\nExamples:\n"
                  "  qrun smoke                                    train the built-in example "
                  "(configs/smoke.yml)\n"
                  "  qrun configs/apot/res20_4bit.yml lr=0.01      the same command goes on with a "
                  "stopped run\n"
                  "  qrun test configs/apot/res20_4bit.yml pretrained_file=res20_4bit.pth.tar\n"
                  "\nExit status:\n"
                  "  0 done; 1 failed; 2 wrong usage or configuration; 3 data, checkpoint or image "
                  "missing or\n"
                  "  damaged; 4 training diverged; 5 an expectation did not hold; 75 stopped early "
                  "by max_time:\n"
                  "  run again. After SIGINT or SIGTERM a training saves and ends by that signal.\n"
                  "\nOptions of a FILE: qrun help keys. Read on in README.md and docs/.\n");
}

void help_command(const Command *c, Str *out)
{
    str_printf(out, "Usage: qrun [OPTION]... %s %s\n%s\n\nOptions:\n", c->name, c->args, c->doc);
    help_options(out);
}

/* ---- options ---- */

/* The index of `word` in `words`, or a fault that names what was expected. */
static int one_of(const char *option, const char *word, const char *const *words, int n, Err *e)
{
    Str list = {0};
    const char *near = str_nearest(word, words, (size_t)n);
    for (int i = 0; i < n; i++) {
        if (str_eq(words[i], word)) {
            str_free(&list);
            return i;
        }
        str_printf(&list, "%s%s", i ? ", " : "", words[i]);
    }
    usage_fault(e, "--%s: '%s'; expected one of %s%s%s%s", option, word, list.s,
                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    str_free(&list);
    return -1;
}

static int unknown_option(const char *typed, Err *e)
{
    const char *names[ARRAY_LEN(options)], *near;
    char *word = xstrdup(typed + strspn(typed, "-"));
    word[strcspn(word, "=")] = 0;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) names[i] = options[i].name;
    near = str_nearest(word, names, ARRAY_LEN(names));
    usage_fault(e, "unknown option '%s'%s%s%s", typed, near ? "; did you mean '--" : "",
                near ? near : "", near ? "'?" : "");
    free(word);
    return -1;
}

typedef struct Asked {
    bool help, version;
    int verbose;
    const char *level;
} Asked;

static int take(Cli *c, Asked *a, int code, Err *e)
{
    static const char *const when[] = {"auto", "always", "never"};
    static const char *const level[] = {"error", "warn", "info", "debug", "trace"};
    static const char *const format[] = {"text", "json"};
    int i;
    switch (code) {
    case 'v':
        a->verbose++;
        return 0;
    case 'q':
        a->verbose--;
        return 0;
    case 'h':
        a->help = true;
        return 0;
    case OPT_VERSION:
        a->version = true;
        return 0;
    case OPT_JSON:
        c->json = true;
        return 0;
    case OPT_MAX_TIME:
        c->max_time = optarg;
        return 0;
    case OPT_AFTER:
        c->after = optarg;
        return 0;
    case OPT_COLOR:
        if ((i = one_of("color", optarg, when, 3, e)) < 0) return -1;
        c->log.color = (When)i;
        return 0;
    case OPT_PROGRESS:
        if ((i = one_of("progress", optarg, when, 3, e)) < 0) return -1;
        c->log.progress = (When)i;
        return 0;
    case OPT_FORMAT:
        if ((i = one_of("log-format", optarg, format, 2, e)) < 0) return -1;
        c->log.json = i == 1;
        return 0;
    default:
        if (one_of("log-level", optarg, level, 5, e) < 0) return -1;
        a->level = optarg;
        a->verbose = 0;
        c->log.level = (LogLevel)one_of("log-level", optarg, level, 5, e);
        return 0;
    }
}

static int parse(Cli *c, Asked *a, Err *e)
{
    struct option longs[ARRAY_LEN(options) + 1];
    int code;
    memset(longs, 0, sizeof longs);
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        longs[i] =
            (struct option){options[i].name, options[i].arg ? required_argument : no_argument, NULL,
                            options[i].code};
    opterr = 0;
    optind = 1;
    while ((code = getopt_long(c->argc, c->argv, ":vqh", longs, NULL)) != -1) {
        const char *typed = c->argv[optind - 1];
        if (code == ':') return usage_fault(e, "option '%s' needs a value", typed);
        if (code == '?') {
            char letter[3] = {'-', (char)optopt, 0};
            if (optopt && str_starts(typed, "--"))
                return usage_fault(e, "option '%s' takes no value", typed);
            return optopt ? usage_fault(e, "unknown option '%s'", letter)
                          : unknown_option(typed, e);
        }
        if (take(c, a, code, e)) return -1;
    }
    {
        int level = (int)c->log.level + a->verbose;
        c->log.level = (LogLevel)(level < (int)LOG_ERROR   ? (int)LOG_ERROR
                                  : level > (int)LOG_TRACE ? (int)LOG_TRACE
                                                           : level);
    }
    c->args = c->argv + optind;
    c->nargs = c->argc - optind;
    return 0;
}

/* ---- what to do ---- */

/* A word that is neither a command nor a file gets the nearest command; what looks like a file is
 * left to the configuration reader, which knows the files beside it. */
static int unknown_word(const char *word, Err *e)
{
    const char *names[ARRAY_LEN(commands)], *near;
    size_t n = 0;
    for (const Command *c = commands; c->name; c++)
        if (!(c->flags & CMD_HIDDEN)) names[n++] = c->name;
    names[n++] = "smoke";
    near = str_nearest(word, names, n);
    return usage_fault(e, "'%s' is neither a command nor a configuration file%s%s%s", word,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int no_json(Err *e)
{
    Str names = {0};
    for (const Command *c = commands; c->name; c++)
        if (c->flags & CMD_JSON) str_printf(&names, "%s%s", names.len ? ", " : "", c->name);
    usage_fault(e, "--json is for a command that prints JSON: %s", names.s);
    str_free(&names);
    return -1;
}

static int dispatch(Cli *c, const Asked *a, Err *e)
{
    const Command *cmd = c->nargs ? command_find(c->args[0]) : NULL;
    Str out = {0};
    if (a->version) {
        version_text(a->verbose > 0, &out);
        print_out(&out);
        return 0;
    }
    if (a->help) {
        if (cmd)
            help_command(cmd, &out);
        else
            help_main(&out);
        print_out(&out);
        return 0;
    }
    if (!c->nargs || !*c->args[0]) return usage_fault(e, "no configuration file and no command given");
    if (c->json && !(cmd && cmd->flags & CMD_JSON)) return no_json(e);
    if (c->after && cmd && !(cmd->flags & CMD_AFTER))
        return usage_fault(e, "--after is for a FILE, run, train and test");
    if (cmd) {
        c->args++;
        c->nargs--;
        return cmd->run(c, e);
    }
    if (!fs_exists(c->args[0]) && !strpbrk(c->args[0], "/.:=") && !str_eq(c->args[0], "smoke"))
        return unknown_word(c->args[0], e);
    return command_run(c, e);
}

/* Without this the first file that is opened would become stdout or stderr of a process that was
 * started with them closed, and what is printed would go into it. */
static void open_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) return;
}

/* A result that could not be written is a failure, unless its reader went away. */
static int flush_results(Err *e)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    int bad;
    errno = 0;
    bad = fflush(stdout) != 0 || ferror(stdout);
    if (!bad || (poll(&out, 1, 0) > 0 && (out.revents & POLLERR))) return 0;
    return err_set(e, ERR_RUN, "stdout: cannot be written%s%s", errno ? ": " : "",
                   errno ? strerror(errno) : "");
}

int run_main(int argc, char **argv)
{
    Cli c = {.argc = argc, .argv = argv, .log = {.level = LOG_INFO}};
    Asked a = {0};
    Err e = {0};
    int status = 0;
    open_standard_files();
    signal(SIGPIPE, SIG_IGN); /* a closed stdout or stderr is no reason to lose a training */
    c.run.started = log_clock();
    if (parse(&c, &a, &e)) {
        log_open(&(LogOpts){.level = LOG_ERROR});
        status = -1;
    } else {
        log_open(&c.log);
        status = dispatch(&c, &a, &e);
        if (!status) status = flush_results(&e);
    }
    if (status) {
        if (e.kind == ERR_NONE) e.kind = ERR_RUN;
        log_err(&e);
        status = (int)e.kind;
    } else {
        status = c.run.status;
    }
    log_close();
    if (c.run.signal) signals_die(c.run.signal);
    return status;
}
