from pathlib import Path

from setuptools import Extension, setup

HTPASSWD = [
    "libpass>=1.9",  # reads every scheme of Apache's password files; the maintained fork of passlib
    "bcrypt>=4",  # which it leaves bcrypt to
]
TRANSLITERATE = ["anyascii>=0.3"]  # the tables of transliteration
LDAP = ["ldap3>=2.9.1"]  # in Python alone: nothing is compiled
JWT = ["PyJWT[crypto]>=2.13"]  # signatures, claims, keys
POSTGRESQL = ["psycopg[binary]>=3.2"]  # its driver
LIMIT = ["regex"]  # where a character ends that is written as several (Unicode's annex 29); "re" does not know
WEBHOOKS = [
    "h11>=0.14",  # HTTP without a network: ours goes to addresses that were judged, in bounded time
    "standardwebhooks>=1.1",  # signatures as receivers check them; without dependencies since that version
]
GRANIAN = ["granian>=2.8"]  # a server that is not written in Python
METRICS = ["prometheus_client>=0.21"]  # Prometheus' text format
HOURS = ["tzdata"]  # time zones, where the system has none
ALL = [*HOURS, *HTPASSWD, *JWT, *LDAP, *LIMIT, *METRICS, *POSTGRESQL, *TRANSLITERATE, *WEBHOOKS]  # all plugins
TESTING = ["pytest>=8", "webtest>=3"]  # tests of plugins against the real application

VERSION = "1.1.0.dev0"  # of what is built from this folder; the commit of a release says "1.1.0"

setup(
    name="smsgw",
    # Git adds the commit where it has no tag, to tell builds apart: "1.1.0.dev0+g1a2b3c4". Without Git: VERSION alone.
    use_scm_version={"version_scheme": lambda _: VERSION, "fallback_version": VERSION},
    description="HTTP gateway in front of SMS Server Tools 3, with plugins for who may send what",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="the smsgw authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Web Environment",
        "Framework :: Pyramid",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Communications :: Telephony",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Application",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[
        "smsgw",
        "smsgw.cli",
        "smsgw.cli.check",
        "smsgw.journal",
        "smsgw.journal.migrations",
        "smsgw.spool",
        "smsgw.spool.following",
        "smsgw.spool.sending",
        "smsgw.testing",
        "smsgw.views",
        "smsgw_plugins",
        "smsgw_plugins.audit",
        "smsgw_plugins.jwt",
        "smsgw_plugins.ldap",
        "smsgw_plugins.metrics",
        "smsgw_plugins.quota",
        "smsgw_plugins.quota.migrations",
        "smsgw_plugins.token",
        "smsgw_plugins.token.migrations",
        "smsgw_plugins.webhooks",
        "smsgw_plugins.webhooks.migrations",
    ],
    package_dir={"smsgw_plugins": "plugins"},
    package_data={"smsgw": ["py.typed", "spool/sending/*.pyi"]},
    # Without a compiler the same is done in Python.
    ext_modules=[Extension("smsgw.spool.sending._put_file", ["smsgw/spool/sending/_put_file.c"], optional=True)],
    install_requires=[
        "alembic>=1.14",  # the tables of the journal and of plugins, from one version to the next
        "click>=8.1",  # the command line
        "colander>=2",  # schemas of bodies and settings
        "cornice>=6.1",  # services, one a path
        "inotify_simple>=2",  # what comes and goes in smsd's folders; it reports a full queue, as others do not
        "phonenumbers>=9",  # numbers as they are written within a country
        "plaster_pastedeploy>=1",  # pserve and PasteDeploy ini files
        "pluggy>=1.5",  # the hooks
        "pyramid>=2.1",
        "python-ulid>=3",  # message ids that sort by time
        "rich>=13",  # tables on the command line
        "sortedcontainers>=2.4",  # lists of a folder, in order while messages come and go
        "sqlalchemy>=2",  # the journal, and one database for plugins with a memory
        "setuptools<82",  # Pyramid and Cornice import pkg_resources, which newer ones lack
        "waitress>=3",  # the server of both ini files
    ],
    # An extra without packages was needed by an older version; who still names it installs nothing more.
    extras_require={
        "all": ALL,
        "granian": GRANIAN,
        "history": [],
        "hours": HOURS,
        "htpasswd": HTPASSWD,
        "jwt": JWT,
        "ldap": LDAP,
        "limit": LIMIT,
        # Exact versions: a new one may find what the old one let pass. ./check and .ci/run both take them from here.
        "lint": ["mypy==2.4.1", "ruff==0.17.6"],
        "metrics": METRICS,
        "postgresql": POSTGRESQL,
        "quota": HOURS,
        "store": [],
        "testing": TESTING,
        "token": [],
        "transliterate": TRANSLITERATE,
        "webhooks": WEBHOOKS,
        "test": [
            *ALL,
            *TESTING,
            *GRANIAN,
            "gunicorn>=22",  # several processes on one spool
            "hypothesis>=6",
            "pytest-cov>=7",  # which tests run a line, for tests.mutation
            "pytest-xdist>=3.6",  # as many processes as cores
            "setuptools-scm>=8",  # builds without a network need it beside setuptools
            "setuptools>=77",  # a plugin's distribution is built without a network
            "trustme>=1",  # a certificate authority for directories and identity providers
        ],
    },
    entry_points={
        "console_scripts": ["smsgw = smsgw.cli:main"],
        "paste.app_factory": ["main = smsgw:main"],
        "paste.server_runner": ["granian = smsgw.granian_server:serve"],
        "smsgw.plugins": [
            "allow = smsgw_plugins.allow:Allow",
            "audit = smsgw_plugins.audit:Audit",
            "blacklist = smsgw_plugins.blacklist:Blacklist",
            "hours = smsgw_plugins.hours:Hours",
            "htpasswd = smsgw_plugins.htpasswd:Htpasswd",
            "jwt = smsgw_plugins.jwt:Jwt",
            "ldap = smsgw_plugins.ldap:Ldap",
            "limit = smsgw_plugins.limit:Limit",
            "metrics = smsgw_plugins.metrics:Metrics",
            "quota = smsgw_plugins.quota:Quota",
            "signature = smsgw_plugins.signature:Signature",
            "simulator = smsgw_plugins.simulator:Simulator",
            "template = smsgw_plugins.template:Template",
            "token = smsgw_plugins.token:Token",
            "transliterate = smsgw_plugins.transliterate:Transliterate",
            "webhooks = smsgw_plugins.webhooks:Webhooks",
            "whitelist = smsgw_plugins.whitelist:Whitelist",
        ],
    },
)
