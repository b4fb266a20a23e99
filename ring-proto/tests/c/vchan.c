/* SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0 */

/*
 * Stock libxenvchan over memory of the test: what it calls to grant and map pages, to ring, and to find its peer in
 * xenstore is answered here.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxenvchan.h>
#include <xengnttab.h>
#include <xenstore.h>

#define FIRST_GRANT 100

/* The channel that is being set up: control page and buffers, left first. */
static unsigned char *control, *buffers;
/* How often the doorbell rang. */
static unsigned int rings;

/* The stock library leaves this to its caller. */
static struct libxenvchan *no_blocking(struct libxenvchan *channel)
{
    if (channel)
        channel->blocking = channel->server_persist = 0;
    return channel;
}

struct libxenvchan *vchan_server(void *page, void *data, size_t left, size_t right)
{
    control = page;
    buffers = data;
    return no_blocking(libxenvchan_server_init(NULL, 1, "/channel", left, right));
}

struct libxenvchan *vchan_client(void *page, void *data)
{
    control = page;
    buffers = data;
    return no_blocking(libxenvchan_client_init(NULL, 1, "/channel"));
}

unsigned int vchan_rings(void)
{
    unsigned int count = rings;

    rings = 0;
    return count;
}

/* Ends the process's use of a channel without the unmapping that libxenvchan_close() does. */
void vchan_free(struct libxenvchan *channel)
{
    if (channel->is_server)
        free(channel->xs_path);
    free(channel);
}

static int handle;

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    return (void *)&handle;
}
int xenevtchn_close(xenevtchn_handle *h)
{
    return 0;
}
int xenevtchn_fd(xenevtchn_handle *h)
{
    return -1;
}
int xenevtchn_notify(xenevtchn_handle *h, evtchn_port_t port)
{
    rings++;
    return 0;
}
xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *h, uint32_t domid)
{
    return 5;
}
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *h, uint32_t domid, evtchn_port_t port)
{
    return 6;
}
int xenevtchn_unbind(xenevtchn_handle *h, evtchn_port_t port)
{
    return 0;
}
xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *h)
{
    return -1;
}
int xenevtchn_unmask(xenevtchn_handle *h, evtchn_port_t port)
{
    return 0;
}

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger, unsigned int flags)
{
    return (void *)&handle;
}
int xengntshr_close(xengntshr_handle *h)
{
    return 0;
}
void *xengntshr_share_page_notify(xengntshr_handle *h, uint32_t domid, uint32_t *ref, int writable,
                                  uint32_t notify_offset, evtchn_port_t notify_port)
{
    *ref = 8;
    return control;
}
void *xengntshr_share_pages(xengntshr_handle *h, uint32_t domid, int count, uint32_t *refs, int writable)
{
    uint32_t before = refs - ((struct vchan_interface *)control)->grants;

    for (int page = 0; page < count; page++)
        refs[page] = FIRST_GRANT + before + page;
    return buffers + 4096 * before;
}
int xengntshr_unshare(xengntshr_handle *h, void *start, uint32_t count)
{
    return 0;
}

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned int flags)
{
    return (void *)&handle;
}
int xengnttab_close(xengnttab_handle *h)
{
    return 0;
}
void *xengnttab_map_grant_ref_notify(xengnttab_handle *h, uint32_t domid, uint32_t ref, int prot,
                                     uint32_t notify_offset, evtchn_port_t notify_port)
{
    return control;
}
void *xengnttab_map_domain_grant_refs(xengnttab_handle *h, uint32_t count, uint32_t domid, uint32_t *refs, int prot)
{
    /* The pages lie in the order of their grants. */
    for (uint32_t page = 1; page < count; page++)
        if (refs[page] != refs[0] + page)
            return NULL;
    return buffers + 4096 * (refs[0] - FIRST_GRANT);
}
int xengnttab_unmap(xengnttab_handle *h, void *start, uint32_t count)
{
    return 0;
}

struct xs_handle *xs_open(unsigned long flags)
{
    return (void *)&handle;
}
void xs_close(struct xs_handle *h)
{
}
void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *len)
{
    return strdup("8");
}
bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data, unsigned int len)
{
    return true;
}
bool xs_rm(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    return true;
}
bool xs_set_permissions(struct xs_handle *h, xs_transaction_t t, const char *path, struct xs_permissions *perms,
                        unsigned int count)
{
    return true;
}
xs_transaction_t xs_transaction_start(struct xs_handle *h)
{
    return 1;
}
bool xs_transaction_end(struct xs_handle *h, xs_transaction_t t, bool abort)
{
    return true;
}
