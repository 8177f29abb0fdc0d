"""Names that a C++ source of a kit can't take: others have them already, all in lower case."""

import re

_KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
char32_t class compl concept const consteval constexpr constinit const_cast continue
co_await co_return co_yield decltype default delete do double dynamic_cast else enum
explicit export extern false float for friend goto if inline int long mutable namespace new
noexcept not not_eq nullptr operator or or_eq private protected public register
reinterpret_cast requires return short signed sizeof static static_assert static_cast struct
switch template this thread_local throw true try typedef typeid typename union unsigned
using virtual void volatile wchar_t while xor xor_eq
"""

#: Headers that sources and libraries include: a file of that name would be taken for them.
_HEADERS = """
algorithm arduino assert board complex ctype errno fenv float inttypes iso646 limits locale
malloc math memory new pins poll regex sched search setjmp signal spi stdalign stdarg
stdbool stddef stdint stdio stdlib string strings tgmath threads time uchar unistd wchar
wctype wire
"""

#: Global functions and macros of the C library, without their variants for other types.
_LIBRARY = """
a64l abort abs access acct acos acosh alarm aligned_alloc alloca arc4random arc4random_buf
arc4random_uniform asctime asin asinh asprintf at_quick_exit atan atan2 atanh atexit atof
atoi atol basename bcmp bcopy brk bsearch bzero calloc canonicalize canonicalize_file_name
cbrt ceil chdir chown chroot clearenv clearerr clock clock_adjtime clock_getcpuclockid
clock_getres clock_gettime clock_nanosleep clock_settime close close_range closefrom confstr
copy_file_range copysign cos cosh crypt ctermid ctime cuserid daddl daemon daylight ddivl
dfmal difftime div dmull dprintf drand48 drand48_data drem dsqrtl dsubl dup dup2 dup3
duplocale dysize eaccess ecvt endusershell environ erand48 erf erfc errno euidaccess execl
execle execlp execv execve execvp execvpe exit exp exp10 exp2 explicit_bzero expm1 fabs
faccessat fadd fchdir fchown fclose fcloseall fcvt fd_mask fd_set fdatasync fdim fdiv fdopen
feof ferror fexecve fflush ffma ffs fgetc fgetpos fgets fileno finite flockfile floor fma
fmax fmaximum fmaximum_mag fmaximum_mag_num fmaximum_num fmaxmag fmemopen fmin fminimum
fminimum_mag fminimum_mag_num fminimum_num fminmag fmod fmul fopen fopencookie fork
fpathconf fprintf fputc fputs fread free freelocale freopen frexp fromfp fromfpx fscanf
fseek fseeko fsetpos fsqrt fsub fsync ftell ftello ftruncate ftrylockfile funlockfile fwrite
gamma gcvt get_current_dir_name getc getchar getcwd getdate getdate_err getdelim
getdomainname getdtablesize getegid getentropy getenv geteuid getgid getgroups gethostid
gethostname getline getloadavg getlogin getopt getpagesize getpass getpayload getpgid
getpgrp getpid getppid getpt getresgid getresuid getsid getsubopt gettid getuid getusershell
getw getwd gmtime grantpt group_member gsignal hypot ilogb imaxabs imaxdiv index initstate
isalnum isalpha isascii isatty isblank iscanonical iscntrl isctype isdigit iseqsig isgraph
isinff isinfl islower isnanf isnanl isprint ispunct issignaling isspace isupper isxdigit
iszero itimerspec j0 j1 jmp_buf jn jrand48 kill killpg l64a labs lchown lcong48 lconv ldexp
ldiv lgamma link linux llabs lldiv llogb llrint llround localeconv localtime lockf lockf64
log log10 log1p log2 logb longjmp lrand48 lrint lround lseek malloc math_errhandling mblen
mbstowcs mbtowc memccpy memchr memcmp memcpy memfrob memmem memmove mempcpy memrchr memset
mkdtemp mkostemp mkostemps mkstemp mkstemps mktemp mktime modf mrand48 nan nanosleep
nearbyint newlocale nextafter nextdown nexttoward nextup nice nrand48 obstack obstack_printf
obstack_vprintf on_exit open_memstream optarg opterr optind optopt pathconf pause pclose
perror pipe pipe2 popen posix_memalign posix_openpt pow pread printf profil
program_invocation_name program_invocation_short_name pselect psiginfo psignal pthread_kill
pthread_sigmask pthread_sigqueue ptsname putc putchar putenv puts putw pwrite qecvt qfcvt
qgcvt qsort quick_exit raise rand random random_data rawmemchr read readlink realloc
reallocarray realpath remainder remove remquo rename renameat2 revoke rewind rindex rint
rmdir round roundeven rpmatch sa_handler sa_sigaction sbrk scalb scalbln scalbn scanf
secure_getenv seed48 select setbuf setbuffer setdomainname setegid setenv seteuid setgid
sethostid sethostname setjmp setlinebuf setlocale setlogin setpayload setpayloadsig setpgid
setpgrp setregid setresgid setresuid setreuid setsid setstate setuid setusershell setvbuf
si_addr si_addr_lsb si_arch si_band si_call_addr si_fd si_int si_lower si_overrun si_pid
si_pkey si_ptr si_status si_stime si_syscall si_timerid si_uid si_upper si_utime si_value
sigabbrev_np sigaction sigaddset sigaltstack sigandset sigblock sigcontext sigdelset
sigdescr_np sigemptyset sigev_notify_attributes sigev_notify_function sigevent sigfillset
siggetmask sighold sigignore siginterrupt sigisemptyset sigismember sigjmp_buf siglongjmp
signal signgam significand sigorset sigpause sigpending sigprocmask sigqueue sigrelse
sigreturn sigset sigsetmask sigstack sigsuspend sigtimedwait sigval sigwait sigwaitinfo sin
sincos sinh sleep snprintf sprintf sqrt srand srand48 srandom sscanf ssignal zeta
y0 y1 yn
"""

#: What the kit, CMake and Arduino call their own.
_KIT = """
all arena bit boolean byte clean constrain created delay edit_cache help init install
interpreter interrupts loop main map micros millis package package_source passed radians
random_seed rebuild_cache resolver round sensor setup std test tflite tone word yield
"""

_RESERVED = frozenset((_KEYWORDS + _HEADERS + _LIBRARY + _KIT).split())
#: What the C library appends to the names of variants.
_VARIANT = re.compile(r"(f|l|f\d+x?|64)?(_r|_unlocked)?$")


def is_reserved(name: str) -> bool:
    """Whether a lower-case name can't be that of a C++ namespace and of files beside it."""
    variants = {name, *(name.removesuffix(match[0]) for match in _VARIANT.finditer(name))}
    return name.endswith("_t") or bool(variants & _RESERVED)
