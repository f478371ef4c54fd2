from smsgw.spool.put_file import PutFile

put_file: PutFile
