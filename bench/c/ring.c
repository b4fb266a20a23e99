// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The ring benchmark in C: Xen's own macros, used as blkfront and blkback use them. Indices are kept in locals over a
 * batch, a request is copied out before it is looked at, and a batch is pushed once, with the doorbell's decision.
 * Each function is one end, running until `count` requests went through; src/ring.rs does the same work in Rust.
 */
#include <string.h>
#include <xenctrl.h>
#include <xen/io/blkif.h>

#define FAILED UINT64_MAX

/* Read once, whatever the compiler knows (ACCESS_ONCE, READ_ONCE). */
#define READ_INDEX(x) (*(volatile RING_IDX *)&(x))

void ring_init(void *page)
{
    blkif_sring_t *sring = page;

    SHARED_RING_INIT(sring);
}

/* Returns the number of doorbells that were asked for. */
uint64_t ring_front(void *page, size_t len, uint32_t depth, uint64_t count)
{
    blkif_front_ring_t ring;
    uint64_t sent = 0, done = 0, doorbells = 0;

    FRONT_RING_INIT(&ring, (blkif_sring_t *)page, len);
    while (done < count) {
        RING_IDX rc = ring.rsp_cons, rp = READ_INDEX(ring.sring->rsp_prod);
        uint64_t fill;

        xen_rmb();
        if (rc == rp)
            goto fill;
        if (RING_RESPONSE_PROD_OVERFLOW(&ring, rp))
            return FAILED;
        for (; rc != rp; rc++) {
            blkif_response_t rsp;

            RING_COPY_RESPONSE(&ring, rc, &rsp);
            if (rsp.id != done || rsp.operation != BLKIF_OP_READ || rsp.status != BLKIF_RSP_OKAY)
                return FAILED;
            done++;
        }
        ring.rsp_cons = rc;
fill:
        fill = depth - (sent - done);
        if (fill > count - sent)
            fill = count - sent;
        if (fill > 0) {
            RING_IDX prod = ring.req_prod_pvt;
            int notify;

            for (; fill > 0; fill--, prod++, sent++) {
                blkif_request_t *req = RING_GET_REQUEST(&ring, prod);

                req->operation = BLKIF_OP_READ;
                req->nr_segments = BLKIF_MAX_SEGMENTS_PER_REQUEST;
                req->handle = 51712;
                req->id = sent;
                req->sector_number = sent * 88;
                for (int i = 0; i < BLKIF_MAX_SEGMENTS_PER_REQUEST; i++) {
                    req->seg[i].gref = (uint32_t)sent + i;
                    req->seg[i].first_sect = 0;
                    req->seg[i].last_sect = 7;
                }
            }
            ring.req_prod_pvt = prod;
            RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&ring, notify);
            doorbells += notify;
        }
    }
    return doorbells;
}

/* Returns the sum over all that was asked for; `doorbells` as above. */
uint64_t ring_back(void *page, size_t len, uint64_t count, uint64_t *doorbells)
{
    blkif_back_ring_t ring;
    uint64_t done = 0, sum = 0, rung = 0;

    BACK_RING_INIT(&ring, (blkif_sring_t *)page, len);
    while (done < count) {
        RING_IDX rc = ring.req_cons, rp = READ_INDEX(ring.sring->req_prod), prod = ring.rsp_prod_pvt;
        int notify;

        xen_rmb();
        if (rc == rp)
            continue;
        if (RING_REQUEST_PROD_OVERFLOW(&ring, rp))
            return FAILED;
        for (; rc != rp; rc++, done++) {
            blkif_request_t req;
            blkif_response_t *rsp;

            RING_COPY_REQUEST(&ring, rc, &req);
            if (req.operation != BLKIF_OP_READ || req.nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST)
                return FAILED;
            sum += req.sector_number;
            for (int i = 0; i < req.nr_segments; i++)
                sum += req.seg[i].gref + req.seg[i].last_sect - req.seg[i].first_sect;

            rsp = RING_GET_RESPONSE(&ring, prod++);
            rsp->id = req.id;
            rsp->operation = req.operation;
            rsp->status = BLKIF_RSP_OKAY;
        }
        ring.req_cons = rc;
        ring.rsp_prod_pvt = prod;
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&ring, notify);
        rung += notify;
    }
    *doorbells = rung;
    return sum;
}
