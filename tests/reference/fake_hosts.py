"""Hosts of a small network on one machine: namespaces with an sshd each, and a cable to pull.

Every host has its own network, process ids, mounts, shared memory, home and temporary folder of
Ray; programs and one shared folder are this machine's. It needs root, ``ip``, ``sshd``, ``rsync``
and ``unshare``. Leaving the context ends every process it started and removes every namespace.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("ip", "sshd", "rsync", "ssh", "ssh-keygen", "unshare")
_START_SECONDS = 20


def missing():
    """Return why there can be no hosts here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [name for name in PROGRAMS if not _where(name)]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def _where(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _run(*command, check=True):
    return subprocess.run(
        [str(word) for word in command], check=check, capture_output=True, text=True
    )


class FakeHosts:
    """Hosts by name; ``address[name]`` reaches them from here, by ssh with ``key``."""

    def __init__(self, names):
        self.names = tuple(names)
        number = 20 + os.getpid() % 200
        self.network = f"10.77.{number}"
        self.address = {name: f"{self.network}.{1 + i}" for i, name in enumerate(self.names)}
        self._mark = f"cid{number}"
        self.folder = Path(tempfile.mkdtemp(prefix="cid"))
        self.key = self.folder / "key"
        self._sshd = {}

    def __enter__(self):
        try:
            for path in (self.key, self.folder / "host_key"):
                _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
            _run("ip", "link", "add", f"{self._mark}b", "type", "bridge")
            _run("ip", "addr", "add", f"{self.network}.254/24", "dev", f"{self._mark}b")
            _run("ip", "link", "set", f"{self._mark}b", "up")
            for name in self.names:
                self._make(name)
            for name in self.names:
                self._wait(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason):
        self.close()

    def _cable(self, name):
        return f"{self._mark}v{self.names.index(name)}"

    def _space(self, name):
        return f"{self._mark}-{name}"

    def home(self, name):
        """Return the host's home folder, as seen from here."""
        return self.folder / name / "home"

    def _make(self, name):
        space, cable, address = self._space(name), self._cable(name), self.address[name]
        _run("ip", "netns", "add", space)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "link", "set", cable, "master", f"{self._mark}b", "up")
        _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "-n", space, "link", "set", "eth0", "up")
        _run("ip", "-n", space, "link", "set", "lo", "up")
        _run("ip", "-n", space, "route", "add", "default", "via", f"{self.network}.254")
        home, raytmp = self.home(name), self.folder / name / "ray"
        for place in (home / ".ssh", raytmp):
            place.mkdir(parents=True, mode=0o700)
        shutil.copy(self.key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
        (home / ".bashrc").write_text("")
        # A virtual environment that is there already, so that nothing is installed.
        (home / "cider-venv").symlink_to(sys.prefix)
        # An address without a name makes every connection wait 10 seconds.
        hosts = "".join(f"{address} {name}\n" for name, address in self.address.items())
        (self.folder / name / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        config = self.folder / name / "sshd_config"
        config.write_text(
            f"ListenAddress {address}\nHostKey {self.folder / 'host_key'}\nPidFile none\n"
            "AuthorizedKeysFile %h/.ssh/authorized_keys\nPermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\nUsePAM no\nStrictModes no\n"
        )
        words = ["ip", "netns", "exec", space, "unshare", "--pid", "--mount", "--ipc", "--uts"]
        words += ["--fork", "--kill-child", "bash", "-ec", self._mounts(name, config)]
        with (self.folder / name / "sshd.log").open("wb") as log:
            self._sshd[name] = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _mounts(self, name, config):
        """Return the shell commands that make a host of a namespace and become its sshd."""
        home, owner = self.home(name), Path.home()
        python = Path(sys.base_prefix)
        lines = ["mount --make-rprivate /", "mount -t proc proc /proc", f"hostname {name}"]
        if python.is_relative_to(owner):  # hidden by the host's own home, so mounted through
            inside = home / python.relative_to(owner)
            lines += [f"mkdir -p {inside}", f"mount --bind {python} {inside}"]
        raytmp = Path(tempfile.gettempdir()) / "ray"
        lines += [
            f"mount --rbind {home} {owner}",
            f"mount --bind {self.folder / name / 'hosts'} /etc/hosts",
            f"mkdir -p {raytmp} /run/sshd",
            f"mount --bind {self.folder / name / 'ray'} {raytmp}",
            "mount -t tmpfs -o size=512m tmpfs /dev/shm",
            f"exec {_where('sshd')} -D -e -f {config}",
        ]
        return "\n".join(lines)

    def _wait(self, name):
        until = time.monotonic() + _START_SECONDS
        while self.ssh(name, "true", check=False).returncode:
            if time.monotonic() > until:
                log = (self.folder / name / "sshd.log").read_text(errors="replace")
                raise RuntimeError(f"host {name} did not come up: {log}")
            time.sleep(0.2)

    def ssh_command(self, name, *options):
        """Return the words of an ssh to a host, without what to do there."""
        return ["ssh", "-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o",
                "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5",
                *options, f"root@{self.address[name]}"]  # fmt: skip

    def ssh(self, name, command, *, check=True):
        """Run a command on a host; return the finished process."""
        return _run(*self.ssh_command(name), command, check=check)

    def cut(self, name):
        """Pull the host's network cable."""
        _run("ip", "link", "set", self._cable(name), "down")

    def restore(self, name):
        """Plug the cable in again."""
        _run("ip", "link", "set", self._cable(name), "up")

    def processes(self, name, text):
        """Return the ids, here, of a host's processes whose command line holds a text."""
        found = []
        for word in _run("ip", "netns", "pids", self._space(name), check=False).stdout.split():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{word}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if text in line:
                    found.append(int(word))
        return found

    def close(self):
        """End every process of the hosts and remove all that was made."""
        for name in self.names:
            for pid in self.processes(name, ""):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for sshd in self._sshd.values():
            with contextlib.suppress(ProcessLookupError):
                sshd.kill()
            sshd.wait()
        for name in self.names:
            _run("ip", "link", "del", self._cable(name), check=False)
            _run("ip", "netns", "del", self._space(name), check=False)
        _run("ip", "link", "del", f"{self._mark}b", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def quoted(command):
    """Return words as one shell command."""
    return shlex.join(str(word) for word in command)
