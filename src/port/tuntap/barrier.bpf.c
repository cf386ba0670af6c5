// What an interface receives goes to packet sockets, and no further: the kernel's own stack comes later
// and gets nothing. Attached where traffic is classified on its way in.

struct __sk_buff;

enum { TC_ACT_SHOT = 2 };

__attribute__((section("classifier"), used)) int keep_out(struct __sk_buff *packet)
{
    (void)packet;
    return TC_ACT_SHOT;
}

__attribute__((section("license"), used)) char program_license[] = "GPL";
