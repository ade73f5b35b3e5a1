// MicroPython counts nothing here.
#define CYW43_STAT_INC(name)
