// A country as a number: its two letters, and its revision.
#define CYW43_COUNTRY(first, second, revision) \
    ((uint32_t)(uint8_t)(first) | (uint32_t)(uint8_t)(second) << 8 | (uint32_t)(revision) << 16)
