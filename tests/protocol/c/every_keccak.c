/* Keccak-256 by each of the ways of keccak.c, of which a processor uses only the fastest that it has. */

#include "keccak.c"

/* Whether this processor has the way of this number. Later digests are made by it. */
int use_way(int number)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (number == 1 && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
        absorb_blocks = absorb_with_bmi;
        return 1;
    }
    if (number == 2 && __builtin_cpu_supports("avx512vl")) {
        absorb_blocks = absorb_with_avx512;
        return 1;
    }
#endif
    absorb_blocks = absorb_anywhere;
    return number == 0;
}

/* The digest of data that is absorbed in pieces of this many bytes. */
void digest_pieces(const uint8_t *data, size_t size, size_t piece, uint8_t *digest)
{
    Keccak state = {.at = 0};
    for (; size > piece; data += piece, size -= piece)
        absorb(&state, data, piece);
    absorb(&state, data, size);
    digest_so_far(&state, digest, DIGEST_BYTES);
}
