//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// A home: one PC with 1 % loss on its cable, behind a NAT router with 100 Mbit/s
// down and 20 up, fetches from a server outside.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l, err := lab.New(lab.Config{}, discard())
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	wan := l.Switch("wan", lab.SwitchConfig{Prefixes: []string{"198.51.100.0/24"}})
	lan := l.Switch("lan", lab.SwitchConfig{
		Prefixes: []string{"10.0.0.0/24"}, Gateways: []string{"10.0.0.1"}, Snooping: true, Querier: true,
	})
	router := l.Router("router")
	outside := router.Join(wan, lab.LinkConfig{
		ToHost:   lab.Path{Rate: 100 * lab.Mbit},
		FromHost: lab.Path{Rate: 20 * lab.Mbit},
	})
	inside := router.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.1/24"}})
	router.Masquerade(outside)
	server := l.Host("server")
	server.Join(wan, lab.LinkConfig{})
	pc := l.Host("pc")
	cable := pc.Join(lan, lab.LinkConfig{
		ToHost: lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: 0.01}},
	})
	if err := l.Up(ctx); err != nil {
		log.Fatal(err)
	}

	const size = 1_000_000
	ln, err := server.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, size))
	}))
	// IP bytes on their way to the LAN, and connections through the NAT.
	toLAN, err := router.CountIP(lab.Forward, lab.Filter{Out: inside, Protocol: unix.IPPROTO_TCP, SrcPort: 80})
	if err != nil {
		log.Fatal(err)
	}
	watch, err := router.WatchFlows(100*time.Millisecond, func(f lab.Flow) bool { return f.Established })
	if err != nil {
		log.Fatal(err)
	}

	resp, err := pc.HTTPClient().Get("http://server/file")
	if err != nil {
		log.Fatal(err)
	}
	payload, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()

	ip, err := toLAN.Read()
	if err != nil {
		log.Fatal(err)
	}
	link, err := cable.Counters()
	if err != nil {
		log.Fatal(err)
	}
	flows, err := watch.Stop()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("payload:", payload, "bytes")
	fmt.Println("more IP bytes than payload:", ip.Bytes > size)
	fmt.Println("more link bytes than IP bytes:", link.ToHost.Bytes > ip.Bytes)
	fmt.Println("most connections at once:", flows.Peak)

	// A program in the host sees its network and the lab's names.
	names, err := pc.Run(ctx, "getent", "hosts", "server")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", names)
	// Output:
	// payload: 1000000 bytes
	// more IP bytes than payload: true
	// more link bytes than IP bytes: true
	// most connections at once: 1
	// 198.51.100.2    server
}
