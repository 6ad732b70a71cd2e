package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// errPrivate says that a receiver's name leads into a private network.
var errPrivate = errors.New("the address is private or special; name the host in notifications.allow if that is meant")

// dialer connects to public addresses only, judged after the name was resolved
// and just before the connection is made, so that a name cannot change between
// check and use. Hosts in allow are let through by their name.
type dialer struct{ allow []string }

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	plain := net.Dialer{Timeout: 10 * time.Second}
	if !slices.ContainsFunc(d.allow, func(a string) bool { return strings.EqualFold(a, host) }) {
		plain.Control = func(_, resolved string, _ syscall.RawConn) error {
			ip, err := netip.ParseAddrPort(resolved)
			if err != nil || !public(ip.Addr()) {
				return fmt.Errorf("%s: %w", resolved, errPrivate)
			}
			return nil
		}
	}
	return plain.DialContext(ctx, network, address)
}

// special are networks that are no place on the public internet. Of IPv6 only
// what is given out as such (2000::/3) may be one, without the parts that hide an
// IPv4 address, such as Teredo (in 2001::/23) and 6to4 (2002::/16); so NAT64,
// IPv4-compatible, IPv4-translated and site-local addresses are none.
var (
	special = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
	globalIPv6 = netip.MustParsePrefix("2000::/3")
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		list[i] = netip.MustParsePrefix(t)
	}
	return list
}

func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Zone() != "" || ip.Is6() && !globalIPv6.Contains(ip) {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}
