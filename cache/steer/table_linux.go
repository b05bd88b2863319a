package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// gateLife is how long an element of a set lives unless it is renewed: so long
// does a box that hangs stand in the way.
const gateLife = 5 * time.Second

// table is the nftables table. It has an owner: nobody else can change it, and
// it ends with the socket.
type table struct {
	cfg    Config
	conn   *nftables.Conn
	of     *nftables.Table
	routes *routes

	gate, infohashes *nftables.Set
	clients, peers   map[byte]*nftables.Set // by family
}

// openTable makes the table with empty sets: nothing is taken yet.
func openTable(cfg Config) (*table, error) {
	var socket *netlink.Conn
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		socket = c
		return c.SetWriteBuffer(1 << 20)
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	t := &table{
		cfg: cfg, conn: conn, of: &nftables.Table{Name: "cistern", Family: nftables.TableFamilyINet},
		clients: map[byte]*nftables.Set{}, peers: map[byte]*nftables.Set{},
	}
	err = own(socket, t.of)
	if err == nil {
		err = t.fill()
	}
	if err == nil {
		t.routes, err = addRoutes(cfg.Mark, cfg.Table)
	}
	if err != nil {
		return nil, errors.Join(err, conn.CloseLasting())
	}
	return t, nil
}

// own makes the table with the flag that the library has no word for.
func own(socket *netlink.Conn, of *nftables.Table) error {
	const ownerFlag = 0x2 // NFT_TABLE_F_OWNER
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(of.Name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binaryutil.BigEndian.PutUint32(ownerFlag)},
	})
	if err != nil {
		return fmt.Errorf("make table: %w", err)
	}
	message := func(kind int, flags netlink.HeaderFlags, family byte, data []byte) netlink.Message {
		version, resource := byte(unix.NFNETLINK_V0), []byte{0, 0}
		if kind < unix.NFNL_SUBSYS_NFTABLES<<8 {
			resource[1] = unix.NFNL_SUBSYS_NFTABLES // of a batch
		}
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags},
			Data:   append([]byte{family, version, resource[0], resource[1]}, data...),
		}
	}
	_, err = socket.SendMessages([]netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, nil),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Excl|netlink.Acknowledge, byte(of.Family), attributes),
		message(unix.NFNL_MSG_BATCH_END, 0, 0, nil),
	})
	if err == nil {
		_, err = socket.Receive()
	}
	if err != nil {
		return fmt.Errorf("make table %s (is another box running here?): %w", of.Name, err)
	}
	return nil
}

// fill makes sets, chains and rules in one transaction.
func (t *table) fill() error {
	endpoint4 := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	endpoint6 := nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
	word := nftables.TypeMark
	for _, s := range []struct {
		into **nftables.Set
		name string
		key  nftables.SetDatatype
	}{
		{&t.gate, "gate", nftables.TypeInetService},
		{&t.infohashes, "infohashes", nftables.MustConcatSetType(word, word, word, word, word)},
	} {
		*s.into = t.set(s.name, s.key)
	}
	t.clients[unix.NFPROTO_IPV4], t.clients[unix.NFPROTO_IPV6] = t.set("clients4", nftables.TypeIPAddr), t.set("clients6", nftables.TypeIP6Addr)
	t.peers[unix.NFPROTO_IPV4], t.peers[unix.NFPROTO_IPV6] = t.set("peers4", endpoint4), t.set("peers6", endpoint6)
	for _, s := range []*nftables.Set{
		t.gate, t.infohashes, t.clients[unix.NFPROTO_IPV4], t.clients[unix.NFPROTO_IPV6], t.peers[unix.NFPROTO_IPV4], t.peers[unix.NFPROTO_IPV6],
	} {
		if err := t.conn.AddSet(s, nil); err != nil {
			return fmt.Errorf("make set %s: %w", s.Name, err)
		}
	}
	t.rules()
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("make rules: %w", err)
	}
	return nil
}

func (t *table) set(name string, key nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{
		Table: t.of, Name: name, KeyType: key, HasTimeout: true, Timeout: gateLife,
		Concatenation: len(nftables.ConcatSetTypeElements(key)) > 1,
	}
}

// renew puts the sets in order, all or nothing, for another gateLife.
func (t *table) renew(c contents) error {
	put := func(s *nftables.Set, keys [][]byte) {
		t.conn.FlushSet(s)
		for chunk := range slices.Chunk(keys, 256) {
			elements := make([]nftables.SetElement, len(chunk))
			for i, key := range chunk {
				elements[i].Key = key
			}
			_ = t.conn.SetAddElements(s, elements) // fails for anonymous sets only
		}
	}
	var keys [][]byte
	for _, p := range c.ports {
		keys = append(keys, binaryutil.BigEndian.PutUint16(p))
	}
	put(t.gate, keys)
	keys = nil
	for _, h := range c.infohashes {
		keys = append(keys, h[:])
	}
	put(t.infohashes, keys)
	clients, peers := map[byte][][]byte{}, map[byte][][]byte{}
	for _, a := range c.clients {
		clients[family(a)] = append(clients[family(a)], a.AsSlice())
	}
	for _, p := range c.peers {
		key := append(p.Addr().AsSlice(), byte(p.Port()>>8), byte(p.Port()), 0, 0)
		peers[family(p.Addr())] = append(peers[family(p.Addr())], key)
	}
	for f := range t.clients {
		put(t.clients[f], clients[f])
		put(t.peers[f], peers[f])
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("renew the gate: %w", err)
	}
	return nil
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// close takes everything back.
func (t *table) close() error {
	return errors.Join(t.conn.CloseLasting(), t.routes.remove())
}

// chain adds a chain of the filter type.
func (t *table) chain(name string, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	return t.conn.AddChain(&nftables.Chain{Table: t.of, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority})
}

func (t *table) rule(c *nftables.Chain, parts ...[]expr.Any) {
	t.conn.AddRule(&nftables.Rule{Table: t.of, Chain: c, Exprs: slices.Concat(parts...)})
}
