/* SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0 */

/*
 * Xen's own macros for rings, as functions that the test can call.
 *
 * The macros leave flow control to their callers; what there is of it here (a full ring takes no request, a response
 * needs a request) is what the crate has.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()
#include <xen/xen-compat.h>
#include <xen/xen.h>
#include <xen/io/ring.h>
#include <xen/io/blkif.h>
#include <xen/io/netif.h>

#define RING(name)                                                                             \
    /* A ring on which `start` requests were answered before. */                               \
    void name##_init(void *page, uint32_t start)                                               \
    {                                                                                          \
        struct name##_sring *ring = page;                                                      \
                                                                                               \
        SHARED_RING_INIT(ring);                                                                \
        ring->req_prod = ring->rsp_prod = start;                                               \
        ring->req_event = ring->rsp_event = start + 1;                                         \
    }                                                                                          \
    void name##_front_attach(struct name##_front_ring *r, void *page, size_t len, uint32_t at) \
    {                                                                                          \
        FRONT_RING_ATTACH(r, (struct name##_sring *)page, at, len);                            \
    }                                                                                          \
    uint32_t name##_size(struct name##_front_ring *r)                                          \
    {                                                                                          \
        return RING_SIZE(r);                                                                   \
    }                                                                                          \
    int name##_front_push(struct name##_front_ring *r, const void *request)                    \
    {                                                                                          \
        if (RING_FULL(r))                                                                      \
            return 0;                                                                          \
        memcpy(RING_GET_REQUEST(r, r->req_prod_pvt), request, sizeof(r->sring->ring[0].req));  \
        r->req_prod_pvt++;                                                                     \
        return 1;                                                                              \
    }                                                                                          \
    int name##_front_publish(struct name##_front_ring *r)                                      \
    {                                                                                          \
        int notify;                                                                            \
                                                                                               \
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(r, notify);                                        \
        return notify;                                                                         \
    }                                                                                          \
    int name##_front_pop(struct name##_front_ring *r, void *response)                          \
    {                                                                                          \
        if (!RING_HAS_UNCONSUMED_RESPONSES(r))                                                 \
            return 0;                                                                          \
        memcpy(response, RING_GET_RESPONSE(r, r->rsp_cons), sizeof(r->sring->ring[0].rsp));    \
        r->rsp_cons++;                                                                         \
        return 1;                                                                              \
    }                                                                                          \
    int name##_front_final_check(struct name##_front_ring *r)                                  \
    {                                                                                          \
        int work;                                                                              \
                                                                                               \
        RING_FINAL_CHECK_FOR_RESPONSES(r, work);                                               \
        return work;                                                                           \
    }                                                                                          \
    void name##_back_attach(struct name##_back_ring *r, void *page, size_t len, uint32_t at)   \
    {                                                                                          \
        BACK_RING_ATTACH(r, (struct name##_sring *)page, at, len);                             \
    }                                                                                          \
    int name##_back_pop(struct name##_back_ring *r, void *request)                             \
    {                                                                                          \
        if (!RING_HAS_UNCONSUMED_REQUESTS(r))                                                  \
            return 0;                                                                          \
        memcpy(request, RING_GET_REQUEST(r, r->req_cons), sizeof(r->sring->ring[0].req));      \
        r->req_cons++;                                                                         \
        return 1;                                                                              \
    }                                                                                          \
    int name##_back_push(struct name##_back_ring *r, const void *response)                     \
    {                                                                                          \
        if (r->rsp_prod_pvt == r->req_cons)                                                    \
            return 0;                                                                          \
        memcpy(RING_GET_RESPONSE(r, r->rsp_prod_pvt), response, sizeof(r->sring->ring[0].rsp)); \
        r->rsp_prod_pvt++;                                                                     \
        return 1;                                                                              \
    }                                                                                          \
    int name##_back_publish(struct name##_back_ring *r)                                        \
    {                                                                                          \
        int notify;                                                                            \
                                                                                               \
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(r, notify);                                       \
        return notify;                                                                         \
    }                                                                                          \
    int name##_back_final_check(struct name##_back_ring *r)                                    \
    {                                                                                          \
        int work;                                                                              \
                                                                                               \
        RING_FINAL_CHECK_FOR_REQUESTS(r, work);                                                \
        return work;                                                                           \
    }

RING(blkif)
RING(netif_tx)
RING(netif_rx)
RING(xen_netif_ctrl)

DEFINE_XEN_FLEX_RING_AND_INTF(flex);

/* Writes as much as there is room for, as users of the flexible ring do. */
uint32_t flex_write(RING_IDX *prod, RING_IDX *cons, unsigned char *data, uint32_t size, const void *from, uint32_t len)
{
    RING_IDX masked_prod = flex_mask(*prod, size), masked_cons = flex_mask(*cons, size);
    uint32_t room = size - flex_queued(*prod, *cons, size);

    if (len > room)
        len = room;
    if (len == 0)
        return 0;
    flex_write_packet(data, from, len, &masked_prod, masked_cons, size);
    xen_wmb();
    *prod += len;
    return len;
}

/* Reads what there is. */
uint32_t flex_read(RING_IDX *prod, RING_IDX *cons, const unsigned char *data, uint32_t size, void *into, uint32_t len)
{
    RING_IDX masked_prod = flex_mask(*prod, size), masked_cons = flex_mask(*cons, size);
    uint32_t queued = flex_queued(*prod, *cons, size);

    if (len > queued)
        len = queued;
    if (len == 0)
        return 0;
    flex_read_packet(into, data, len, masked_prod, &masked_cons, size);
    xen_mb();
    *cons += len;
    return len;
}
