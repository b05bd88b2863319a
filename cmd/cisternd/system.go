package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cistern-edge/cistern/admin"
	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/image/appliance"
)

// system is the appliance as the panel sees it.
type system struct{ remote *appliance.Remote }

// systemOf is nil where the box is a program on somebody's machine.
func systemOf(socket string) admin.System {
	if socket == "" {
		return nil
	}
	return system{appliance.Dial(socket)}
}

func (s system) State(ctx context.Context) (client.System, error) {
	st, err := s.remote.Report(ctx)
	out := client.System{
		MemTotal: st.MemTotal, Now: st.Now, TimeServers: st.NTP, Syslog: st.Syslog, Channel: st.Channel, At: st.At,
		Slots:   []client.Slot{},
		Network: client.Network{Name: st.Name, Fixed: st.Fixed, Links: []client.Link{}, Gateways: st.Gateways, DNS: st.DNS},
		Version: st.Release.Version, Slot: string(st.Slot), OnTrial: st.OnTrial, Healthy: st.Healthy, Waiting: st.Waiting,
		Boots: st.Boots, Started: st.Started, ReadyIn: st.ReadyIn, Restarts: st.Restarts, MemAvailable: st.MemAvailable, TimeFrom: st.TimeFrom, Firmware: st.Firmware,
	}
	for _, sl := range st.Slots {
		out.Slots = append(out.Slots, client.Slot{Slot: string(sl.Slot), Version: sl.Version, State: sl.State, Starts: sl.Starts, Reason: sl.Reason})
	}
	out.SSH = client.SSH{On: st.SSH.On, HostKey: st.SSH.HostKey, Keys: []client.SSHKey{}}
	for _, k := range st.SSH.Keys {
		out.SSH.Keys = append(out.SSH.Keys, client.SSHKey(k))
	}
	for _, l := range st.Links {
		out.Network.Links = append(out.Network.Links, client.Link(l))
	}
	if st.Last != nil {
		last := outcome(*st.Last)
		out.Last = &last
	}
	return out, err
}

func (s system) Update(ctx context.Context, file io.Reader) (client.Update, error) {
	o, err := s.remote.Update(ctx, file)
	return outcome(o), err
}

func (s system) Log(ctx context.Context) ([]byte, error) { return s.remote.Log(ctx) }

func outcome(o appliance.Outcome) client.Update {
	return client.Update{Version: o.Version, Slot: o.Slot, State: o.State, Reason: o.Reason, Starts: o.Starts, Time: o.Time}
}

func (s system) Disks(ctx context.Context) ([]client.Disk, error) {
	disks, err := s.remote.Disks(ctx)
	list := make([]client.Disk, len(disks))
	for i, d := range disks {
		list[i] = client.Disk(d)
	}
	return list, err
}

func (s system) AddSSHKey(ctx context.Context, line string) error { return s.remote.AddKey(ctx, line) }

func (s system) RemoveSSHKey(ctx context.Context, fingerprint string) error {
	return s.remote.RemoveKey(ctx, fingerprint)
}

func (s system) Order(ctx context.Context, o client.SystemOrder) (client.Update, error) {
	var err error
	switch o.Do {
	case client.CheckChannel:
		found, err := s.remote.Check(ctx)
		return outcome(found), err
	case client.Install:
		err = s.remote.Install(ctx, o.Disk)
	case client.Reset:
		err = s.remote.Reset(ctx)
	case client.Restart:
		err = s.remote.Restart(ctx)
	case client.PowerOff:
		err = s.remote.PowerOff(ctx)
	case client.Schedule:
		err = s.remote.Schedule(ctx, o.Channel, o.At)
	default:
		err = fmt.Errorf("%w: there is no order %q", appliance.ErrRefused, o.Do)
	}
	switch {
	case errors.Is(err, appliance.ErrRefused):
		return client.Update{State: "refused", Reason: err.Error()}, nil
	case err != nil:
		return client.Update{}, err
	}
	return client.Update{State: "done"}, nil
}
