//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// side is a caching proxy of one worker, with its log and its figures on.
type side struct {
	*server
	name string
}

// find gives the path of a program of a Debian package.
func find(program, pkg string) (string, error) {
	for _, name := range []string{program, filepath.Join("/usr/sbin", program)} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not here (Debian: apt-get install %s)", program, pkg)
}

// startAll starts the box and its peers in front of an origin. stop ends them,
// also after an error.
func (b *bench) startAll(ctx context.Context, o *origin) (sides []*side, stop func(), err error) {
	stop = func() {
		for _, s := range sides {
			s.stop()
		}
	}
	for _, peer := range []struct {
		name  string
		start func(ctx context.Context, dir, addr string, o *origin) (*server, error)
	}{
		{"cistern", b.proxyBox}, {"nginx", proxyNginx}, {"squid", proxySquid}, {"varnish", proxyVarnish}, {"trafficserver", proxyATS},
	} {
		dir, err := os.MkdirTemp(b.dir, peer.name+"-")
		if err != nil {
			return sides, stop, err
		}
		// As root they give their work to another user, who has to come in.
		if err := errors.Join(os.Chmod(b.dir, 0o755), os.Chmod(dir, 0o777)); err != nil {
			return sides, stop, err
		}
		addr, err := freeAddr()
		if err != nil {
			return sides, stop, err
		}
		s, err := peer.start(ctx, dir, addr, o)
		if err != nil {
			return sides, stop, fmt.Errorf("%s: %w", peer.name, err)
		}
		sides = append(sides, &side{s, peer.name})
	}
	return sides, stop, nil
}

// write writes a configuration file and gives its path.
func write(dir, name, format string, args ...any) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o644)
}

func (b *bench) proxyBox(ctx context.Context, dir, addr string, o *origin) (*server, error) {
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	config, err := write(dir, "box.toml", proxyBoxConfig, addr, o.addr, filepath.Join(dir, "access.log"), admin, dir)
	if err != nil {
		return nil, err
	}
	return start(ctx, addr, filepath.Join(dir, "log"), oneWorker, filepath.Join(b.bin, "cisternd"), "--config", config)
}

const proxyBoxConfig = `version = 1
[proxy]
listen = %q
allow_destinations = [%q]
access_log = %q
[admin]
listen = %q
[store]
dir = %q
scrub_period = "off"
[peering]
enabled = false
`

func proxyNginx(ctx context.Context, dir, addr string, o *origin) (*server, error) {
	program, err := find("nginx", "nginx-light")
	if err != nil {
		return nil, err
	}
	config, err := write(dir, "nginx.conf", proxyNginxConfig, dir, addr, o.addr)
	if err != nil {
		return nil, err
	}
	return start(ctx, addr, filepath.Join(dir, "log"), nil, program, "-p", dir, "-c", config)
}

// proxyNginxConfig lets nginx write its log as the box does: a buffer at a time.
const proxyNginxConfig = `daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	types_hash_max_size 2048;
	access_log %[1]s/access.log combined buffer=64k flush=1s;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/temp;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	proxy_cache_path %[1]s/cache levels=1:2 keys_zone=bench:10m max_size=8g inactive=1d use_temp_path=off;
	server {
		listen %[2]s;
		location = /status { stub_status; }
		location / {
			proxy_pass http://%[3]s;
			proxy_cache bench;
			proxy_cache_key $scheme$host$request_uri;
			add_header X-Cache-Status $upstream_cache_status;
		}
	}
}
`

func proxySquid(ctx context.Context, dir, addr string, _ *origin) (*server, error) {
	program, err := find("squid", "squid")
	if err != nil {
		return nil, err
	}
	config, err := write(dir, "squid.conf", proxySquidConfig, dir, addr)
	if err != nil {
		return nil, err
	}
	if said, err := exec.CommandContext(ctx, program, "-N", "-z", "-f", config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make the store: %w: %s", err, said)
	}
	return start(ctx, addr, filepath.Join(dir, "log"), nil, program, "-N", "-f", config)
}

const proxySquidConfig = `http_port %[2]s
http_access allow all
cache_mem 256 MB
cache_dir ufs %[1]s/store 4096 16 256
maximum_object_size 2 GB
access_log stdio:%[1]s/access.log
buffered_logs on
cache_log %[1]s/cache.log
pid_filename %[1]s/squid.pid
coredump_dir %[1]s
pinger_enable off
shutdown_lifetime 0 seconds
client_idle_pconn_timeout 10 minutes
`

// proxyVarnish is no forward proxy; it takes requests in absolute form. Its log
// is in memory, where it is read from; what writes it to a file would be a
// process of its own and is not counted.
func proxyVarnish(ctx context.Context, dir, addr string, o *origin) (*server, error) {
	program, err := find("varnishd", "varnish")
	if err != nil {
		return nil, err
	}
	return start(ctx, addr, filepath.Join(dir, "log"), nil, program, "-F", "-j", "none", "-n", filepath.Join(dir, "work"), "-a", addr, "-b", o.addr,
		"-s", "malloc,2G", "-p", "thread_pools=1", "-p", "timeout_idle=600")
}

func proxyATS(ctx context.Context, dir, addr string, _ *origin) (*server, error) {
	program, err := find("traffic_server", "trafficserver")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"runroot.yaml":        fmt.Sprintf(atsLayout, dir),
		"etc/records.config":  fmt.Sprintf(atsConfig, port),
		"etc/storage.config":  filepath.Join(dir, "cache") + " 1G\n",
		"etc/ip_allow.yaml":   "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n",
		"etc/logging.yaml":    atsLog,
		"etc/remap.config":    "",
		"etc/plugin.config":   "",
		"etc/cache.config":    "",
		"etc/parent.config":   "",
		"etc/hosting.config":  "",
		"etc/volume.config":   "",
		"etc/sni.yaml":        "",
		"etc/splitdns.config": "",
		"var/none":            "",
		"run/none":            "",
		"log/none":            "",
		"cache/none":          "",
	} {
		if _, err := write(dir, name, "%s", text); err != nil {
			return nil, err
		}
	}
	for _, sub := range []string{"etc", "var", "run", "log", "cache"} {
		if err := os.Chmod(filepath.Join(dir, sub), 0o777); err != nil {
			return nil, err
		}
	}
	return start(ctx, addr, filepath.Join(dir, "log.txt"), []string{"TS_RUNROOT=" + dir}, program)
}

const atsLayout = `prefix: %[1]s
exec_prefix: %[1]s
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: %[1]s/etc
datadir: %[1]s/cache
includedir: /usr/include
libdir: /usr/lib
libexecdir: /usr/lib/trafficserver/modules
localstatedir: %[1]s/var
runtimedir: %[1]s/run
logdir: %[1]s/log
cachedir: %[1]s/cache
`

const atsConfig = `CONFIG proxy.config.http.server_ports STRING %s:ip-in=127.0.0.1
CONFIG proxy.config.admin.user_id STRING nobody
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.reverse_proxy.enabled INT 0
CONFIG proxy.config.url_remap.remap_required INT 0
CONFIG proxy.config.http.cache.http INT 1
CONFIG proxy.config.cache.ram_cache.size INT 256M
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600
CONFIG proxy.config.log.logging_enabled INT 3
CONFIG proxy.config.diags.show_location INT 0
`

const atsLog = `logging:
  formats:
    - name: short
      format: '%<chi> %<cqtq> "%<cqhm> %<pqu>" %<pssc> %<pscl> %<crc>'
  logs:
    - filename: access
      format: short
`
