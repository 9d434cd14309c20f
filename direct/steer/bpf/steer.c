// SPDX-License-Identifier: Apache-2.0
//
// The NIC's switch, in two programs: steer, on the uplink, sends each frame to
// the network server's socket or into an instance's VF; egress, on a VF's outer
// end and its outlet, lets onto the wire what the instance may send. Both look addresses and
// ports up in the portmap's tables (package portmap/table says how these are
// laid out), which the monitor alone writes. In doubt a frame is the server's.
//
// Compile with: go generate ./direct/steer

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Bits of a table's word.
#define OWNER(w) ((__u32)(w)&0xffffff)
#define KIND(w) ((__u32)((w) >> 28) & 0xf)
#define KIND_FREE 0
#define KIND_PORT 1
#define KIND_SHARED 2
#define KIND_DEDICATED 3

#define PROBE_WINDOW 32
#define MAX_REREADS 4

// Bits of vf.control: frames of the owner's go to the VF; the VF is for some of the
// owner's ports only, and its other frames are the server's, as if there were no
// VF; and, if not 0, what the stamps of the frames that the VF is for begin with.
#define VF_STEERED 1
#define VF_SOME 2
#define VF_TAG(control) ((__u32)((control) >> 8) & 0xff)

#define EINVAL 22

#define STAMP_MAGIC 0x704d5453

// The least segment size that an instance may ask for, as the network server has it.
#define MIN_SEGMENT 28

#define IPPROTO_FRAG 44
#define IPPROTO_ICMP6 58
#define NDP_FIRST 133
#define NDP_LAST 137

// Set when the program is loaded.
const volatile __u64 hash_seed = 0;
const volatile __u32 slot_mask = 0;
const volatile __u32 uplink_index = 0;
const volatile __u32 max_frame = 0; // what the uplink carries, Ethernet header included
const volatile __u8 nic_mac[8] = {};

struct slot {
	__u64 a, b, word, unused;
};

struct vf {
	__u64 control;
	__u64 stamps;
	__u64 unused[6];
};

// counts of a VF; the order is that of counterNames in Go.
enum count {
	IN, IN_BYTES, OUT, OUT_BYTES,
	DROP_SHORT, DROP_MAC, DROP_SERVERS, DROP_IP, DROP_PORT, DROP_LONG,
	COUNTS
};

struct counts {
	__u64 n[COUNTS];
};

// scope says which local ports a VF is for, if not for all: a bit for each, those
// of TCP first. It does not change while the VF is the owner's.
struct scope {
	__u64 ports[2048];
};

// The sizes of these are set when the program is loaded.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slot);
} junction_addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} junction_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} junction_xsks SEC(".maps");

// devs holds the VFs' outer ends.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} junction_devs SEC(".maps");

// owners: which VF an instance has; outers: which VF an outer end, or an outlet,
// belongs to.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} junction_owners SEC(".maps");

struct outer {
	__u32 vf, owner;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct outer);
} junction_outers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vf);
} junction_vfs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scope);
} junction_scopes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} junction_counts SEC(".maps");

// packet is what decides about a frame.
struct packet {
	__u64 src[2], dst[2]; // as in the table: IPv4 as ::ffff:a.b.c.d
	__u32 transport;      // 0 TCP, 1 UDP, 2 neither, or not to be told for certain
	__u16 sport, dport;   // host byte order
	__u8 ndp;             // neighbour discovery, or what may hide it
};

static __always_inline __u64 mix(__u64 x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

// address_word finds an address's entry; 0 if the table has none.
static __always_inline __u64 address_word(const __u64 key[2])
{
	__u32 hash = mix(mix(key[0] ^ hash_seed) ^ key[1]);

	for (__u32 i = 0; i < PROBE_WINDOW; i++) {
		__u32 index = 1 + ((hash + i) & slot_mask);
		volatile struct slot *s = bpf_map_lookup_elem(&junction_addrs, &index);
		if (!s)
			return 0;
		__u64 w = s->word;
		if (!w)
			return 0; // never used: the address is in no later slot
		if (KIND(w) == KIND_FREE || s->a != key[0] || s->b != key[1])
			continue;
		if (s->word == w)
			return w;
		return 0; // changed meanwhile: the server knows
	}
	return 0;
}

// port_word finds the entry of a shared address's port.
static __always_inline __u64 port_word(__u64 shared, __u32 transport, __u16 port)
{
	__u32 index = OWNER(shared) << 17 | transport << 16 | port;
	volatile __u64 *w = bpf_map_lookup_elem(&junction_ports, &index);

	return w ? *w : 0;
}

// parse_transport finds the ports of a packet that is whole.
static __always_inline void parse_transport(void *l4, void *end, __u8 proto, struct packet *p)
{
	__be16 *ports = l4;

	p->transport = 2;
	if ((proto != IPPROTO_TCP && proto != IPPROTO_UDP) || (void *)(ports + 2) > end)
		return;
	p->transport = proto == IPPROTO_UDP;
	p->sport = bpf_ntohs(ports[0]);
	p->dport = bpf_ntohs(ports[1]);
}

static __always_inline int parse4(void *l3, void *end, struct packet *p)
{
	struct iphdr *ip = l3;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return -1;
	p->src[0] = p->dst[0] = 0;
	p->src[1] = 0xffff0000ull | (__u64)ip->saddr << 32;
	p->dst[1] = 0xffff0000ull | (__u64)ip->daddr << 32;
	p->transport = 2;
	if (ip->ihl == 5 && !(ip->frag_off & bpf_htons(0x3fff)))
		parse_transport(ip + 1, end, ip->protocol, p);
	return 0;
}

// may_be_ndp tells whether what follows an IPv6 header may be neighbour discovery:
// also behind extension headers, of which only the network server follows the chain.
// first is the first byte behind the header: of ICMPv6 the type, of a fragment header
// the protocol of the whole.
static __always_inline int may_be_ndp(__u8 proto, const __u8 *first, void *end)
{
	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
		return 0;
	if ((void *)(first + 1) > end)
		return 1;
	if (proto == IPPROTO_ICMP6)
		return *first >= NDP_FIRST && *first <= NDP_LAST;
	return proto != IPPROTO_FRAG || (*first != IPPROTO_TCP && *first != IPPROTO_UDP);
}

static __always_inline int parse6(void *l3, void *end, struct packet *p)
{
	struct ipv6hdr *ip = l3;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return -1;
	__builtin_memcpy(p->src, &ip->saddr, 16);
	__builtin_memcpy(p->dst, &ip->daddr, 16);
	parse_transport(ip + 1, end, ip->nexthdr, p);
	p->ndp = may_be_ndp(ip->nexthdr, (void *)(ip + 1), end);
	return 0;
}

// parse finds the headers; not 0 for what is not IP.
static __always_inline int parse(void *data, void *end, struct packet *p)
{
	struct ethhdr *eth = data;

	p->ndp = 0;
	if ((void *)(eth + 1) > end)
		return -1;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return parse4(eth + 1, end, p);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return parse6(eth + 1, end, p);
	return -1;
}

static __always_inline int is_nic(const __u8 *mac)
{
	for (int i = 0; i < ETH_ALEN; i++)
		if (mac[i] != nic_mac[i])
			return 0;
	return 1;
}

// add counts for one VF on this processor.
static __always_inline void add(__u32 vf, enum count what, __u64 n)
{
	struct counts *c = bpf_map_lookup_elem(&junction_counts, &vf);

	if (c)
		c->n[what] += n;
}

// put_stamp writes the next stamp of a VF's owner in front of the frame.
static __always_inline void put_stamp(struct xdp_md *ctx, struct vf *v, __u32 tag)
{
	__u32 *meta;

	if (bpf_xdp_adjust_meta(ctx, -8))
		return;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 2) > (void *)(long)ctx->data)
		return;
	meta[0] = STAMP_MAGIC;
	meta[1] = tag << 24 | ((__sync_fetch_and_add(&v->stamps, 1) + 1) & 0xffffff);
}

// in_scope tells whether a packet from the wire is for one of the ports that a VF
// is for. What does not show its ports is not.
static __always_inline int in_scope(__u32 slot, const struct packet *p)
{
	struct scope *s = bpf_map_lookup_elem(&junction_scopes, &slot);

	if (!s || p->transport > 1)
		return 0;
	return s->ports[(p->transport << 10 | p->dport >> 6) & 2047] >> (p->dport & 63) & 1;
}

// owner_of finds whose a frame from the wire is, and parses it; 0 if that is the
// server's to do.
static __always_inline __u32 owner_of(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u64 w;

	if ((void *)(eth + 1) > end || !is_nic(eth->h_dest) || is_nic(eth->h_source))
		return 0;
	if (parse(data, end, p) || p->ndp)
		return 0;
	w = address_word(p->dst);
	if (KIND(w) == KIND_DEDICATED)
		return OWNER(w);
	if (KIND(w) != KIND_SHARED || p->transport > 1)
		return 0;
	w = port_word(w, p->transport, p->dport);
	return KIND(w) == KIND_PORT ? OWNER(w) : 0;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	struct packet p = {.transport = 2};
	__u32 owner = owner_of(ctx, &p), queue = ctx->rx_queue_index;
	__u32 *vf = owner ? bpf_map_lookup_elem(&junction_owners, &owner) : 0;
	struct vf *v;
	__u64 control;
	__u32 slot, length = ctx->data_end - ctx->data;

	if (!vf)
		goto server;
	slot = *vf;
	v = bpf_map_lookup_elem(&junction_vfs, &slot);
	if (!v)
		goto server;
	control = *(volatile __u64 *)&v->control;
	if (control & VF_SOME && !in_scope(slot, &p))
		goto server;
	if (VF_TAG(control))
		put_stamp(ctx, v, VF_TAG(control));
	if (control & VF_STEERED && bpf_redirect_map(&junction_devs, slot, XDP_DROP) == XDP_REDIRECT) {
		add(slot, IN, 1);
		add(slot, IN_BYTES, length);
		return XDP_REDIRECT;
	}
server:
	return bpf_redirect_map(&junction_xsks, queue, XDP_DROP);
}

// fits tells whether the uplink carries a frame, or what it is cut into.
static __always_inline int fits(struct __sk_buff *skb, const struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct tcphdr *tcp;
	__u32 l4 = sizeof(struct ethhdr) + sizeof(struct iphdr);

	if (!skb->gso_size)
		return skb->len <= max_frame;
	if (p->transport || (void *)(eth + 1) > end)
		return 0; // only TCP is cut, behind headers that are of one length
	if (eth->h_proto != bpf_htons(ETH_P_IP))
		l4 = sizeof(struct ethhdr) + sizeof(struct ipv6hdr);
	tcp = data + l4;
	if ((void *)(tcp + 1) > end)
		return 0;
	return skb->gso_size >= MIN_SEGMENT && l4 + tcp->doff * 4 + skb->gso_size <= max_frame;
}

// sent is what sum_is_own needs to know of a frame that may be sent.
struct sent {
	__u32 l4, transport;
};

// verdict says which counter a frame that an instance sends ends in.
static __always_inline enum count verdict(struct __sk_buff *skb, __u32 owner, struct sent *is)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct packet p;
	__u64 w;

	if ((void *)(eth + 1) > end)
		return DROP_SHORT;
	if (!is_nic(eth->h_source))
		return DROP_MAC;
	// Group addresses, and the NIC's own, which all local instances have.
	if (eth->h_dest[0] & 1 || is_nic(eth->h_dest))
		return DROP_SERVERS;
	// The kernel has taken a VLAN tag off, and would put it on again.
	if (skb->vlan_present || parse(data, end, &p) || p.ndp)
		return DROP_SERVERS;
	if (!fits(skb, &p))
		return DROP_LONG;
	is->transport = p.transport;
	is->l4 = sizeof(*eth) + (eth->h_proto == bpf_htons(ETH_P_IP) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	w = address_word(p.src);
	if (KIND(w) == KIND_DEDICATED)
		return OWNER(w) == owner ? OUT : DROP_IP;
	if (KIND(w) != KIND_SHARED)
		return DROP_IP;
	if (p.transport > 1)
		return DROP_SERVERS;
	w = port_word(w, p.transport, p.sport);
	return KIND(w) == KIND_PORT && OWNER(w) == owner ? OUT : DROP_PORT;
}

// sum_is_own tells whether the checksum that is still to be written into a frame, if
// there is one, comes to lie where TCP and UDP have it, or behind: not into an address
// or a port that has just been checked. Where it goes the sender says, and no field
// shows it. But the kernel adjusts no checksum that is still to be written, and cuts no
// frame off before its end; a frame that it does cut off is dropped. Pointers into the
// frame are invalid then.
static __always_inline int sum_is_own(struct __sk_buff *skb, __u32 l4, __u32 transport)
{
	__u16 before, after;

	if (bpf_skb_load_bytes(skb, 0, &before, sizeof(before)) ||
	    bpf_l4_csum_replace(skb, 0, 0, 1, sizeof(before)) ||
	    bpf_skb_load_bytes(skb, 0, &after, sizeof(after)))
		return 0;
	if (before != after) // there is none to be written
		return !bpf_skb_store_bytes(skb, 0, &before, sizeof(before), 0);
	return transport <= 1 && bpf_skb_change_tail(skb, l4 + (transport ? 7 : 17), 0) == -EINVAL;
}

SEC("tc")
int egress(struct __sk_buff *skb)
{
	__u32 index = skb->ifindex;
	struct outer *o = bpf_map_lookup_elem(&junction_outers, &index);
	struct sent is = {};
	enum count c;

	if (!o)
		return TC_ACT_SHOT;
	c = verdict(skb, o->owner, &is);
	if (c == OUT && !sum_is_own(skb, is.l4, is.transport))
		c = DROP_IP;
	add(o->vf, c, 1);
	if (c != OUT)
		return TC_ACT_SHOT;
	add(o->vf, OUT_BYTES, skb->len);
	return bpf_redirect(uplink_index, 0);
}

char _license[] SEC("license") = "Apache-2.0";
