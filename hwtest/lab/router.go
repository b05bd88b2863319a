//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// Router is a host that forwards between its links and tracks connections.
type Router struct {
	*Host
}

// Router adds a router. Unlike a host it takes no gateway from its switches: use
// Route where it needs one.
func (l *Lab) Router(name string) *Router {
	r := &Router{Host: l.addHost(name, true)}
	l.build("router "+name, r.make)
	return r
}

func (r *Router) make() error {
	for _, key := range []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/netfilter/nf_conntrack_acct",
	} {
		if err := r.ns.sysctl(key, "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// Any rule that looks at the state of a connection makes the kernel track.
	return r.rules("lab-track", func(c *nftables.Conn, table *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{
			Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityMangle,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: stateNew()})
	})
}

// Masquerade makes r a NAT router: what leaves by out carries r's address there,
// and what comes in by out without having been asked for is dropped.
func (r *Router) Masquerade(out *Link) {
	r.lab.build("masquerade on "+r.name, func() error {
		if out.host != r.Host {
			return errors.New("the link is not the router's")
		}
		return r.rules("lab-nat-"+out.near.name, func(c *nftables.Conn, table *nftables.Table) {
			nat := c.AddChain(&nftables.Chain{
				Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
			})
			c.AddRule(&nftables.Rule{Table: table, Chain: nat, Exprs: []expr.Any{
				load(expr.MetaKeyOIFNAME), equal(ifname(out.near.name)), &expr.Masq{},
			}})
			guard := c.AddChain(&nftables.Chain{
				Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
			})
			unasked := []expr.Any{load(expr.MetaKeyIIFNAME), equal(ifname(out.near.name))}
			unasked = append(append(unasked, stateNew()...), &expr.Verdict{Kind: expr.VerdictDrop})
			c.AddRule(&nftables.Rule{Table: table, Chain: guard, Exprs: unasked})
		})
	})
}

func (r *Router) rules(table string, fill func(*nftables.Conn, *nftables.Table)) error {
	c, err := nftables.New(nftables.WithNetNSFd(r.ns.fd))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	fill(c, c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: table}))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("load table %s: %w", table, err)
	}
	return nil
}

// stateNew matches packets that open a connection.
func stateNew() []expr.Any {
	mask := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}
